//! The client of a bucket: credentials, region, certificates, timeouts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};

use super::request::{ATTEMPTS, REQUEST_TIMEOUT};
use crate::base::ca_file;
use crate::base::fault::{Fault, Kind};
use crate::config::{self, Checksums};

/// Returns the client, and the server's name for messages.
pub async fn make(configured: &config::S3) -> Result<(Client, String)> {
    // A dated behaviour version: a new SDK must not change requests by itself.
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client(configured)?)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(Duration::from_secs(10)).operation_attempt_timeout(REQUEST_TIMEOUT).build(),
        )
        // Uploads have a timeout of our own, per part: the SDK's protection mistakes a slow line for a dead one.
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().upload_enabled(false).build());
    if let Some(region) = &configured.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    let mut builder = aws_sdk_s3::config::Builder::from(&shared).force_path_style(configured.path_style);
    let endpoint = configured.endpoint.as_deref().or(shared.endpoint_url()).map(str::to_owned);
    if let Some(endpoint) = &configured.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if endpoint.is_some() {
        // Checksums on every request break S3-compatible servers (barman#1064, aws-sdk-rust#1240).
        builder = builder
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    match configured.checksums {
        Some(Checksums::Always) => {
            builder = builder.request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
        }
        Some(Checksums::WhenRequired | Checksums::Md5) => {
            builder = builder.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        }
        None => {}
    }
    let region = shared.region().map(ToString::to_string);
    if region.is_none() {
        anyhow::ensure!(
            endpoint.is_some(),
            Fault::new(
                Kind::Configuration,
                format!("no region for bucket `{}`: set `region` in its store, or AWS_REGION", configured.bucket)
            )
        );
        builder = builder.region(Region::new("us-east-1"));
    }
    let at = endpoint.unwrap_or_else(|| format!("s3.{}.amazonaws.com", region.unwrap_or_default()));
    Ok((Client::from_conf(builder.build()), at))
}

/// Trusts the system's CAs (or those of SSL_CERT_FILE), that of AWS_CA_BUNDLE, and that of the store's key `ca_file`.
fn http_client(configured: &config::S3) -> Result<SharedHttpClient> {
    let mut trusted = TrustStore::default();
    let from_environment = std::env::var_os("AWS_CA_BUNDLE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let files = [(from_environment, "AWS_CA_BUNDLE"), (configured.ca_file.clone(), "ca_file")];
    for (path, named_by) in files.into_iter().filter_map(|(path, named_by)| Some((path?, named_by))) {
        let read = ca_file::read(&path);
        let pem = read.map_err(|why| Fault::new(Kind::Configuration, format!("{named_by}: {why}")))?;
        trusted = trusted.with_pem_certificate(pem.text);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build()?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}
