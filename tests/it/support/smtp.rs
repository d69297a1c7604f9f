//! A mail server that keeps what it gets: SMTP with STARTTLS and AUTH PLAIN (RFC 5321, 3207, 4954).

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One mail.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Headers and text, with `\n` at the ends of lines.
    pub content: String,
    /// Name and password of the login.
    pub login: Option<(String, String)>,
    pub is_by_tls: bool,
}

/// What was said to it, line by line, and the mails.
#[derive(Default)]
struct Got {
    lines: Vec<String>,
    mails: Vec<Mail>,
}

pub struct Smtp {
    pub port: u16,
    got: Arc<Mutex<Got>>,
}

impl Smtp {
    /// It ends with the test process. With certificate and key, it offers STARTTLS.
    pub fn start(tls: Option<(&str, &str)>) -> Self {
        Self::start_as(tls, false)
    }

    /// It wants a login without TLS, refuses it, and repeats its line.
    pub fn that_repeats() -> Self {
        Self::start_as(None, true)
    }

    fn start_as(tls: Option<(&str, &str)>, repeats: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::<Mutex<Got>>::default();
        let tls = tls.map(|(certificate, key)| Arc::new(config(certificate, key)));
        let for_threads = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (got, tls) = (Arc::clone(&for_threads), tls.clone());
                // A client that goes away in between is what some tests are about.
                std::thread::spawn(move || serve(stream, tls, repeats, &got));
            }
        });
        Self { port, got }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.got.lock().unwrap().mails.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.got.lock().unwrap().lines.clone()
    }
}

fn config(certificate: &str, key: &str) -> ServerConfig {
    let certificates = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(certificates, key).unwrap()
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, repeats: bool, got: &Mutex<Got>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    (&stream).write_all(b"220 localhost ready\r\n")?;
    if converse(&stream, tls.is_some(), false, repeats, got)?
        && let Some(config) = tls
    {
        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
        converse(StreamOwned::new(connection, stream), false, true, repeats, got)?;
    }
    Ok(())
}

/// Returns true when the client wants TLS.
fn converse(
    stream: impl Read + Write,
    offers_tls: bool,
    is_by_tls: bool,
    repeats: bool,
    got: &Mutex<Got>,
) -> std::io::Result<bool> {
    let mut stream = BufReader::new(stream);
    let mut mail = Mail { from: String::new(), to: Vec::new(), content: String::new(), login: None, is_by_tls };
    loop {
        let line = line_of(&mut stream)?;
        if line.is_empty() {
            return Ok(false);
        }
        got.lock().unwrap().lines.push(line.clone());
        let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match word.as_str() {
            "EHLO" if offers_tls => "250-localhost\r\n250 STARTTLS",
            "EHLO" if is_by_tls => "250-localhost\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250 AUTH PLAIN",
            "EHLO" if repeats => "250-localhost\r\n250 AUTH PLAIN",
            "EHLO" => "250 localhost",
            "STARTTLS" => {
                stream.get_mut().write_all(b"220 go ahead\r\n")?;
                return Ok(true);
            }
            "AUTH" if repeats => &format!("535 5.7.8 not you: {line}"),
            "AUTH" => {
                let encoded = line.split(' ').nth(2).unwrap_or_default();
                let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
                let mut parts = decoded.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).skip(1);
                mail.login = Some((parts.next().unwrap(), parts.next().unwrap()));
                "235 welcome"
            }
            "MAIL" => {
                mail.from = address(&line);
                "250 ok"
            }
            "RCPT" if line.contains("nobody@") => "550 5.1.1 no such user here",
            "RCPT" => {
                mail.to.push(address(&line));
                "250 ok"
            }
            "DATA" => {
                stream.get_mut().write_all(b"354 end with a dot\r\n")?;
                loop {
                    let line = line_of(&mut stream)?;
                    if line == "." {
                        break;
                    }
                    mail.content += &format!("{}\n", line.strip_prefix('.').unwrap_or(&line));
                }
                got.lock().unwrap().mails.push(mail.clone());
                "250 2.0.0 queued as 4711"
            }
            "QUIT" => {
                let _ = stream.get_mut().write_all(b"221 bye\r\n");
                return Ok(false);
            }
            _ => "250 ok",
        };
        stream.get_mut().write_all(format!("{answer}\r\n").as_bytes())?;
        stream.get_mut().flush()?;
    }
}

fn line_of(stream: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What stands between `<` and `>`.
fn address(line: &str) -> String {
    line.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default().to_owned()
}
