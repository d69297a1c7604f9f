//! Azurite, Microsoft's emulator of Azure Blob Storage. Its blobs are in its memory; it checks signatures.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequestBody;

use super::eventually;
use super::serve::free_port;

/// The account and the key of every Azurite, which its documentation names.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Dropped, it ends; it ends with the test process, too.
pub struct Azurite {
    port: u16,
    supervisor: Child,
}

/// Until its standard input ends.
const SUPERVISOR: &str = r#"
node "$1" --blobHost 127.0.0.1 --blobPort "$2" --inMemoryPersistence --disableTelemetry --silent >/dev/null 2>&1 </dev/null &
pid=$!
read -r _
kill $pid
wait $pid
"#;

impl Azurite {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/azurite");
        let output = Command::new(script).arg("path").output().unwrap();
        let program = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(Path::new(&program).is_file(), "no Azurite: run `scripts/azurite install` (`make test` does)");
        let port = free_port();
        let supervisor =
            Command::new("sh").args(["-c", SUPERVISOR, "sh", &program, &port.to_string()]).stdin(Stdio::piped()).spawn().unwrap();
        let azurite = Self { port, supervisor };
        eventually("Azurite answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        azurite
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    pub fn create_container(&self, container: &str) {
        self.put(&format!("{container}?restype=container"), &[], "");
    }

    /// Puts a blob of any name: object_store refuses some.
    pub fn put_blob(&self, container: &str, name: &str, content: &'static str) {
        self.put(&format!("{container}/{name}"), &[("x-ms-blob-type", "BlockBlob")], content);
    }

    fn put(&self, path: &str, headers: &[(&str, &str)], content: &'static str) {
        let mut request = http::Request::put(format!("{}/{path}", self.endpoint())).header("content-length", content.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(HttpRequestBody::from(content.to_owned())).unwrap();
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
        let mut text = format!("PUT /{ACCOUNT}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{text}\r\n{content}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
