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
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Answers,
    /// 500 to everything.
    Fails,
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
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
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
    asked.lock().unwrap().push(Asked { method, target, body });
    let status = match manners {
        Manners::Answers | Manners::Dawdles(_) => "200 OK".to_owned(),
        Manners::Fails => "500 Internal Server Error".to_owned(),
        Manners::Redirects(status, url) => format!("{status}\r\nLocation: {url}"),
        Manners::Moves(_) if is_moved => "200 OK".to_owned(),
        Manners::Moves(status) => status.to_owned() + &moved,
        Manners::Hangs => loop {
            std::thread::park();
        },
    };
    (&stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
}
