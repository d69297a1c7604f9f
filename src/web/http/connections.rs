//! Limits the connections of the pages: few at a time, none for long. The descriptors and the memory that they hold would be
//! missing for the backups of the same process.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most connections at a time, each of which holds a descriptor.
const CONNECTIONS: usize = 64;

/// The time for the head of a request, from the first byte or from the end of the request before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The buffer of each connection; a longer head is refused. hyper would take 400 KiB.
const BUFFER_BYTES: usize = 32 << 10;

/// A connection takes no further request after this time.
const LIFETIME: Duration = Duration::from_secs(60);

/// The time in which the last answer of a connection must be made and read.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause between two attempts to find a place while all are taken.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The pause after an error that is not of one connection alone: no descriptors are left.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Answers until `done`, then ends the open connections.
pub async fn serve(listener: TcpListener, router: Router, done: CancellationToken) {
    let (places, conversations) = (Places::new(), TaskTracker::new());
    loop {
        let next = async {
            let stream = accept(&listener).await;
            Some((stream, places.take().await?))
        };
        let next = tokio::select! {
            () = done.cancelled() => None,
            next = next => next,
        };
        let Some((stream, place)) = next else { break };
        conversations.spawn(converse(stream, router.clone(), place, done.clone()));
    }
    drop(listener);
    conversations.close();
    conversations.wait().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_one_connection(error.kind()) => {}
            Err(error) => {
                tracing::warn!("cannot accept connections to the pages; trying again: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn is_of_one_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Answers until the client leaves, its time is over, or its place is needed.
async fn converse(stream: TcpStream, router: Router, place: Arc<Place>, done: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let answering = Arc::clone(&place);
    let service = service_fn(move |request| {
        let (answering, answer) = (Arc::clone(&answering), router.call(request));
        async move {
            let _answering = Answering::new(answering);
            answer.await
        }
    });
    // Without a timer hyper silently ignores all timeouts.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = place.needed.cancelled() => return,
        () = done.cancelled() => {}
        () = tokio::time::sleep(LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = place.needed.cancelled() => {}
        () = tokio::time::sleep(LAST_ANSWER_TIMEOUT) => {}
    }
}

/// The places for connections, and their holders.
struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Place>>>,
}

/// A connection holds its place until it ends.
struct Place {
    /// Since when it has been the client's turn: to send a head, to read an answer. `None` while an answer is made.
    quiet_since: Mutex<Option<Instant>>,
    /// Cancelled when another connection needs the place.
    needed: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(CONNECTIONS)), taken: Mutex::default() }
    }

    /// Returns a place. When all are taken, the client that has been quiet the longest loses its own: a client that sends its
    /// request at once is always answered, whatever others do. Returns `None` when the server has ended.
    async fn take(&self) -> Option<Arc<Place>> {
        let permit = loop {
            match Arc::clone(&self.free).try_acquire_owned() {
                Ok(permit) => break permit,
                Err(TryAcquireError::Closed) => return None,
                Err(TryAcquireError::NoPermits) => self.need_the_quietest(),
            }
            // Its task returns the place; if no client was quiet, one soon is.
            let freed = tokio::time::timeout(LOOK_AGAIN, Arc::clone(&self.free).acquire_owned()).await;
            if let Ok(permit) = freed {
                break permit.ok()?;
            }
        };
        let quiet_since = Mutex::new(Some(Instant::now()));
        let place = Arc::new(Place { quiet_since, needed: CancellationToken::new(), _permit: permit });
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|place| place.strong_count() > 0);
        taken.push(Arc::downgrade(&place));
        Some(place)
    }

    fn need_the_quietest(&self) {
        let taken: Vec<_> = self.taken.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let quiet = taken.iter().filter(|place| !place.needed.is_cancelled());
        if let Some((_, place)) = quiet.filter_map(|place| Some((place.quiet_since()?, place))).min_by_key(|(since, _)| *since) {
            place.needed.cancel();
        }
    }
}

impl Place {
    fn quiet_since(&self) -> Option<Instant> {
        *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_quiet_since(&self, since: Option<Instant>) {
        *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// Marks an answer in the making: its connection is not given up for another one.
struct Answering(Arc<Place>);

impl Answering {
    fn new(place: Arc<Place>) -> Self {
        place.set_quiet_since(None);
        Self(place)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set_quiet_since(Some(Instant::now()));
    }
}
