//! A way to a server that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::postgres::Server;

/// Passes bytes between a port of its own and a server's socket.
pub struct Proxy {
    port: u16,
    open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>>,
    is_closed: Arc<AtomicBool>,
    hold: Arc<Hold>,
}

/// Bytes of clients that contain a word wait here.
#[derive(Default)]
struct Hold {
    word: &'static str,
    /// Whether some wait, and whether they may pass.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Hold {
    fn pass(&self, bytes: &[u8]) {
        if self.word.is_empty() || memchr::memmem::find(bytes, self.word.as_bytes()).is_none() {
            return;
        }
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// Whether a connection has copied rows, whether the answer to its commit is lost, and whether this is the server's side.
struct Copies(Arc<AtomicBool>, bool, bool);

impl Copies {
    fn loses(&self, bytes: &[u8]) -> bool {
        let says = |word: &[u8]| memchr::memmem::find(bytes, word).is_some();
        let Self(copies, loses, is_servers) = self;
        if !is_servers && says(b"COPY ") {
            copies.store(true, Ordering::Relaxed);
        }
        *loses && *is_servers && copies.load(Ordering::Relaxed) && says(b"C\0\0\0\x0bCOMMIT\0")
    }
}

impl Proxy {
    pub fn start(server: &Server) -> Self {
        Self::start_holding(server, "")
    }

    /// What a client sends with this word in it waits until [`Proxy::let_pass`].
    pub fn start_holding(server: &Server, word: &'static str) -> Self {
        Self::start_so(server, word, false)
    }

    /// Cuts a connection that has copied rows where the server says that it has committed: the client does not hear that.
    pub fn start_losing_commits(server: &Server) -> Self {
        Self::start_so(server, "", true)
    }

    fn start_so(server: &Server, word: &'static str, loses: bool) -> Self {
        let hold = Arc::new(Hold { word, ..Default::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = server.socket().join(".s.PGSQL.5432");
        let open = Arc::new(Mutex::new(Vec::new()));
        let is_closed = Arc::new(AtomicBool::new(false));
        let (kept, refuses, held) = (Arc::clone(&open), Arc::clone(&is_closed), Arc::clone(&hold));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if refuses.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                kept.lock().unwrap().push((client.try_clone().unwrap(), server.try_clone().unwrap()));
                let copies = Arc::new(AtomicBool::new(false));
                let (to, from) = (Copies(Arc::clone(&copies), loses, false), Copies(copies, loses, true));
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&held), to);
                pass(server, client, Arc::default(), from);
            }
        });
        Self { port, open, is_closed, hold }
    }

    /// Whether something waits.
    pub fn holds(&self) -> bool {
        self.hold.state.lock().unwrap().0
    }

    pub fn let_pass(&self) {
        self.hold.state.lock().unwrap().1 = true;
        self.hold.changed.notify_all();
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Cuts all connections, and ends each new one at once.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.cut();
    }

    /// Neither side hears more of the other; new connections are passed as before.
    pub fn cut(&self) {
        for (client, server) in self.open.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: impl Read + Send + 'static, mut to: impl Write + Side + 'static, hold: Arc<Hold>, copies: Copies) {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            hold.pass(&buffer[..length]);
            if copies.loses(&buffer[..length]) {
                to.end();
                break;
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
}

/// Where bytes are passed to.
trait Side: Send {
    fn end(&self);
}

impl Side for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Side for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}
