//! moto, an S3 server with Object Lock and versions of objects. Its objects are in its memory, and it checks no signatures.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;
use super::serve::free_port;

/// Dropped, it ends; it ends with the test process, too.
pub struct Moto {
    port: u16,
    supervisor: Child,
}

/// Until its standard input ends.
const SUPERVISOR: &str = r#"
python3 -m moto.server -H 127.0.0.1 -p "$1" >/dev/null 2>&1 </dev/null &
pid=$!
read -r _
kill $pid
wait $pid
"#;

impl Moto {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/moto");
        let output = Command::new(script).arg("path").output().unwrap();
        let folder = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(Path::new(&folder).is_dir(), "no moto: run `scripts/moto install` (`make test` does)");
        let port = free_port();
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh", &port.to_string()])
            .env("PYTHONPATH", folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let moto = Self { port, supervisor };
        eventually("moto answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        moto
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn create_bucket(&self, bucket: &str) {
        self.ask("PUT", bucket, "", "");
    }

    /// A DELETE hides an object, and its versions stay.
    pub fn create_versioned_bucket(&self, bucket: &str) {
        self.create_bucket(bucket);
        let versioned = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
        self.ask("PUT", &format!("{bucket}?versioning"), "", versioned);
    }

    /// No version goes before so many days are over, whoever asks.
    pub fn create_locked_bucket(&self, bucket: &str, days: u32) {
        self.ask("PUT", bucket, "x-amz-bucket-object-lock-enabled: true\r\n", "");
        let rule = format!(
            "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        );
        self.ask("PUT", &format!("{bucket}?object-lock"), "", &rule);
    }

    /// Versions can be locked, each by who writes it; none is by itself.
    pub fn create_lockable_bucket(&self, bucket: &str) {
        self.ask("PUT", bucket, "x-amz-bucket-object-lock-enabled: true\r\n", "");
    }

    /// Objects go after so many days.
    pub fn expire(&self, bucket: &str, days: u32) {
        let rule = format!(
            "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Rule><ID>tidy</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status><Expiration><Days>{days}</Days></Expiration></Rule></LifecycleConfiguration>"
        );
        self.ask("PUT", &format!("{bucket}?lifecycle"), "", &rule);
    }

    /// The XML of a listing of all versions.
    pub fn versions(&self, bucket: &str) -> String {
        self.ask("GET", &format!("{bucket}?versions"), "", "")
    }

    /// Keys that a plain listing shows.
    pub fn objects(&self, bucket: &str) -> Vec<String> {
        let listed = self.ask("GET", &format!("{bucket}?list-type=2"), "", "");
        listed.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// Keys of multipart uploads that were neither completed nor aborted.
    pub fn unfinished_uploads(&self, bucket: &str) -> Vec<String> {
        let listed = self.ask("GET", &format!("{bucket}?uploads"), "", "");
        listed.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// A request without a signature: it must succeed. Returns the answer's body.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let (status, answer) = self.try_ask(method, path, headers, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// The answer's status and body.
    pub fn try_ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let (head, body) = self.exchange(method, path, headers, body);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The headers of an object.
    pub fn headers_of(&self, path: &str, headers: &str) -> String {
        self.exchange("HEAD", path, headers, "").0
    }

    fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        // Unsigned requests are those of an anonymous client, which may do all here.
        let request = format!(
            "{method} /{path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
