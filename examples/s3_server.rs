//! A small real S3 server for the benchmark: s3s-fs over HTTP, signatures checked.
//!
//!   cargo run --release --example s3_server -- FOLDER
//!
//! serves FOLDER with the bucket `backups` on a free port of 127.0.0.1, prints its URL, and ends when stdin does: a
//! benchmark that is killed takes its server with it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| anyhow::anyhow!("usage: s3_server FOLDER"))?;
    std::fs::create_dir_all(folder.join("backups"))?;
    let files = FileSystem::new(&folder).map_err(|error| anyhow::anyhow!("{}: {error:?}", folder.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();

    // One thread, as in the tests: what the server takes of the machine shows in the comparison, and more would take more.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                // A client may break a connection at any time; the next one matters, not why.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });

    // Whoever started us reads one line and waits for it: stdout to a pipe is not flushed by itself.
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "http://{address}")?;
    stdout.flush()?;

    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
