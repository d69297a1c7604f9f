//! How each cloud is opened: where it is, and with which credentials.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use object_store::azure::{AzureConfigKey, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::HttpClient;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use reqwest::Certificate;
use secrecy::ExposeSecret as _;
use url::Url;

use super::attempts::ATTEMPTS;
use super::http_client::Connector;
use crate::base::ca_file;
use crate::base::fault::{Fault, Kind};
use crate::config;

/// Where Microsoft's own tools and libraries look, too.
const AZURE_VARIABLES: [(&str, AzureConfigKey); 8] = [
    ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
];

/// Who signs requests, and how.
#[derive(Clone)]
pub enum Provider {
    Azure { account: String, credentials: AzureCredentialProvider },
    Google { credentials: GcpCredentialProvider },
}

pub struct Opened {
    pub backend: Arc<dyn ObjectStore>,
    pub client: HttpClient,
    pub provider: Provider,
    pub at: String,
}

pub fn open(configured: &config::Cloud) -> Result<Opened> {
    // rustls panics without one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let at = match (&configured.endpoint, &configured.provider) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, config::Provider::Azure { account, .. }) => format!("https://{account}.blob.core.windows.net"),
        (None, config::Provider::Google { .. }) => "https://storage.googleapis.com".to_owned(),
    };
    let url = Url::parse(&at).with_context(|| format!("`{at}` is not the URL of a server"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let at = url.as_str().trim_end_matches('/').to_owned();
    let (part_timeout, certificates) = (configured.part_timeout.map(|timeout| timeout.0), certificates(configured)?);
    let connector = Connector { host, part_timeout, certificates };
    let client = connector.client()?;
    let (backend, provider) = match &configured.provider {
        config::Provider::Azure { account, container } => {
            let builder = azure(configured).with_account(account).with_container_name(container).with_endpoint(at.clone());
            let builder = builder.with_retry(retries()).with_http_connector(connector);
            let azure = builder.build().map_err(|error| unusable(configured, &error))?;
            let credentials = Arc::clone(azure.credentials());
            (Arc::new(azure) as Arc<dyn ObjectStore>, Provider::Azure { account: account.clone(), credentials })
        }
        config::Provider::Google { bucket } => {
            let builder = google(configured).with_bucket_name(bucket).with_base_url(&at);
            let builder = builder.with_retry(retries()).with_http_connector(connector);
            let google = builder.build().map_err(|error| unusable(configured, &error))?;
            let credentials = Arc::clone(google.credentials());
            (Arc::new(google) as Arc<dyn ObjectStore>, Provider::Google { credentials })
        }
    };
    Ok(Opened { backend, client, provider, at })
}

/// An account's key is Base64; a SAS token is the query of a URL, with a signature in it.
fn azure(configured: &config::Cloud) -> MicrosoftAzureBuilder {
    let builder = MicrosoftAzureBuilder::new();
    match configured.credentials.as_ref().map(|credentials| credentials.expose_secret()) {
        Some(token) if token.contains("sig=") => builder.with_config(AzureConfigKey::SasKey, token),
        Some(key) => builder.with_access_key(key),
        None => AZURE_VARIABLES.into_iter().fold(builder, |builder, (variable, key)| match variable_of(variable) {
            Some(value) => builder.with_config(key, value),
            None => builder,
        }),
    }
}

/// Without either, the file of `gcloud auth application-default login` counts, else the machine's service account.
fn google(configured: &config::Cloud) -> GoogleCloudStorageBuilder {
    let builder = GoogleCloudStorageBuilder::new();
    match (&configured.credentials, variable_of("GOOGLE_APPLICATION_CREDENTIALS")) {
        (Some(json), _) => builder.with_service_account_key(json.expose_secret()),
        (None, Some(path)) => builder.with_application_credentials(path),
        (None, None) => builder,
    }
}

fn variable_of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn certificates(configured: &config::Cloud) -> Result<Vec<Certificate>> {
    let Some(path) = &configured.ca_file else { return Ok(Vec::new()) };
    let pem = ca_file::read(path).map_err(|why| Fault::new(Kind::Configuration, format!("ca_file: {why}")))?;
    Ok(pem.certificates.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(250), max_backoff: Duration::from_secs(5), base: 2.0 },
        max_retries: ATTEMPTS as usize,
        // A slow line takes minutes for a part; a signature of Azure counts for a quarter of an hour.
        retry_timeout: Duration::from_secs(10 * 60),
    }
}

fn unusable(configured: &config::Cloud, error: &object_store::Error) -> anyhow::Error {
    let what = match &configured.provider {
        config::Provider::Azure { account, .. } => format!("the credentials for account `{account}` are not usable"),
        config::Provider::Google { bucket } => format!("the credentials for bucket `{bucket}` are not usable"),
    };
    let wanted = match &configured.provider {
        config::Provider::Azure { .. } => "an account's key or a SAS token",
        config::Provider::Google { .. } => "the JSON of a service account's key",
    };
    Fault::new(Kind::Configuration, format!("{what} ({error}): they are {wanted}")).into()
}
