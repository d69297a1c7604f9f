//! A web server that writes down what it is asked, for pings, webhooks and traces.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In lower case.
    pub headers: String,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Answers,
    /// 500 to everything.
    Fails,
    /// Answers everything with this status and this text.
    Says(&'static str, &'static str),
    /// 403 to everything, with what was asked.
    Repeats,
    /// 429 to the first, with a wish for a pause of a second.
    IsBusyAtFirst,
    /// Takes requests, and never answers.
    Hangs,
    /// Answers only after half a second what has this in its path.
    Dawdles(&'static str),
    /// Sends everybody on, with this status, to this URL.
    Redirects(&'static str, &'static str),
    /// Sends everybody on, with this status, to the same path below /moved, where it answers.
    Moves(&'static str),
}

pub struct Recorder {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Recorder {
    /// It ends with the test process.
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let for_threads = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&for_threads);
                // A client that goes away in between is what some tests are about.
                std::thread::spawn(move || serve(stream, manners, &asked));
            }
        });
        Self { address, asked }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The bodies that were posted, as JSON.
    pub fn posted(&self) -> Vec<serde_json::Value> {
        let posts = self.asked().into_iter().filter(|asked| asked.method == "POST");
        posts.map(|asked| serde_json::from_slice(&asked.body).unwrap()).collect()
    }

    /// In the order in which they were answered.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// `METHOD PATH` of each, without queries.
    pub fn paths(&self) -> Vec<String> {
        let path = |asked: &Asked| format!("{} {}", asked.method, asked.target.split('?').next().unwrap());
        self.asked().iter().map(path).collect()
    }
}

fn serve(stream: TcpStream, manners: Manners, asked: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut headers, mut login) = (0, String::new(), String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.to_ascii_lowercase().starts_with("authorization:") {
            login = header.trim().to_owned();
        }
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        headers += &format!("{header}\n");
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if let Manners::Dawdles(path) = manners
        && target.contains(path)
    {
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let moved = format!("\r\nLocation: /moved{target}");
    let is_moved = target.starts_with("/moved");
    let is_first = asked.lock().unwrap().is_empty();
    let repeated = format!("denied: {target} {login} {}", String::from_utf8_lossy(&body));
    asked.lock().unwrap().push(Asked { method, target, headers, body });
    let status = match manners {
        Manners::Answers | Manners::Dawdles(_) => "200 OK".to_owned(),
        Manners::Says(status, _) => status.to_owned(),
        Manners::IsBusyAtFirst if is_first => "429 Too Many Requests\r\nRetry-After: 1".to_owned(),
        Manners::IsBusyAtFirst => "200 OK".to_owned(),
        Manners::Repeats => "403 Forbidden".to_owned(),
        Manners::Fails => "500 Internal Server Error".to_owned(),
        Manners::Redirects(status, url) => format!("{status}\r\nLocation: {url}"),
        Manners::Moves(_) if is_moved => "200 OK".to_owned(),
        Manners::Moves(status) => status.to_owned() + &moved,
        Manners::Hangs => loop {
            std::thread::park();
        },
    };
    let text = match manners {
        Manners::Says(_, text) => text,
        Manners::Repeats => &repeated,
        _ => "",
    };
    let length = text.len();
    (&stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}").as_bytes())
}

/// Asks a server of this host. Returns all of its answer, or nothing if there is none.
pub fn get(port: u16, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).ok()?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
