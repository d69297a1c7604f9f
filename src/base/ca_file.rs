//! Reads certificates of private CAs, for S3, webhook and pings.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// One certificate or more, each of which can sign others.
pub struct Pem {
    pub text: Vec<u8>,
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Reads a PEM file. The error names the file and says what is wrong with it.
pub fn read(path: &Path) -> Result<Pem, String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| format!("`{shown}` is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("`{shown}` contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates.iter().enumerate() {
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("certificate {} of `{shown}` cannot be used: {error}", number + 1))?;
    }
    Ok(Pem { text, certificates })
}
