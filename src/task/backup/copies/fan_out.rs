//! One stream that becomes an object in several stores at once. The memory is bounded: a few pieces wait for each store. So the stream goes at
//! the pace of the slowest store; one that fails is left out, and so is one that makes the others wait for too long.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::patience::Paced;
pub use super::patience::Patience;
use super::several::none_took_it;
use super::target::Target;
use crate::base::age_keys::{AgeKeys, Recipient};
use crate::base::fault::{Fault, Kind};
use crate::members::blocks::{self, Blocks};
use crate::members::encrypt::Encryptor;
use crate::members::encryption::Encryption;
use crate::store::{Store, Upload};

/// The pieces that wait for a store, beside the one that it is taking: members of the dump, of 4 MiB at most.
const QUEUED: usize = 1;

/// Where there are others: a store that has failed may not answer an abort, either, and the next run sweeps what stays.
const ABORT_LONGEST: Duration = Duration::from_secs(20);

/// An object that is being written to several stores.
#[derive(Default)]
pub struct FanOut {
    /// In the order of the targets that it was opened for.
    pub outlets: Vec<Outlet>,
    patience: Patience,
}

/// The object in one of the stores.
pub struct Outlet {
    keys: Arc<AgeKeys>,
    /// Whether `max_upload` says how fast the store may be written to.
    is_paced: bool,
    /// The time for which it has waited for that.
    paced: Paced,
    /// None: the store had failed before, or the object could not be begun.
    upload: Option<Upload>,
    taken_bytes: u64,
    /// What it is when it is finished; None before all of it was taken.
    pub stored: Option<Stored>,
    pub failure: Option<anyhow::Error>,
}

/// An object as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
    pub blocks: Blocks,
    pub encryption: Option<Encryption>,
}

impl FanOut {
    /// Begins the object in the stores of all targets that have not failed.
    pub async fn open(
        targets: &[Target],
        key: impl Fn(&Store) -> String,
        expected_bytes: u64,
        patience: Patience,
    ) -> Result<Self> {
        let opening = targets.iter().map(|target| {
            let key = key(&target.store);
            async move {
                let mut outlet = Outlet::of(&target.store);
                if target.failure.is_none() {
                    match target.store.upload_locked(&key, expected_bytes).await {
                        Ok(upload) => outlet.upload = Some(upload),
                        Err(error) => outlet.failure = Some(error),
                    }
                }
                outlet
            }
        });
        let mut fan_out = Self { outlets: join_all(opening).await, patience };
        fan_out.ensure_one_takes_it()?;
        Ok(fan_out)
    }

    /// Begins the object in one store.
    pub async fn to_one(store: &Store, key: &str, expected_bytes: u64) -> Result<Self> {
        let mut outlet = Outlet::of(store);
        outlet.upload = Some(store.upload_locked(key, expected_bytes).await?);
        Ok(Self { outlets: vec![outlet], patience: Patience::default() })
    }

    /// Makes the object of the only store complete.
    pub async fn finish_one(&mut self) -> Result<Stored> {
        let outlet = self.outlets.first_mut().ok_or_else(|| anyhow::anyhow!("there is no store"))?;
        outlet.finish().await?;
        outlet.stored.clone().ok_or_else(|| anyhow::anyhow!("not all of it was taken"))
    }

    /// Fails when no store takes the object.
    pub fn ensure_one_takes_it(&mut self) -> Result<()> {
        if self.outlets.iter().any(Outlet::takes) {
            return Ok(());
        }
        Err(none_took_it(self.outlets.iter_mut().filter_map(|outlet| outlet.failure.take()).collect()))
    }

    /// Passes on all that `push` pushes into the lanes. Afterwards each outlet has what it stored, or why it failed; an error when none has
    /// all of it.
    pub async fn pass<T, F>(&mut self, push: impl FnOnce(Lanes) -> F) -> Result<T>
    where
        F: Future<Output = Result<(Lanes, T)>>,
    {
        let patience = self.patience;
        let mut lanes = Lanes { lanes: Vec::new(), patience };
        let (mut taking, mut tokens, mut paced) = (Vec::new(), Vec::new(), Vec::new());
        for (number, outlet) in self.outlets.iter_mut().enumerate().filter(|(_, outlet)| outlet.takes()) {
            let (sender, receiver) = mpsc::channel(QUEUED);
            let given_up = CancellationToken::new();
            tokens.push(given_up.clone());
            paced.push(outlet.paced.clone());
            lanes.add(&outlet.keys, Sink { outlet: number, sender, given_up: given_up.clone(), paced: outlet.paced.clone() })?;
            taking.push(outlet.take(receiver, given_up));
        }
        let passed = {
            let pushing = async {
                let (lanes, result) = push(lanes).await?;
                let (made, count) = lanes.finish().await?;
                anyhow::Ok((made, count, result))
            };
            let taking = join_all(taking);
            tokio::pin!(pushing, taking);
            tokio::select! {
                biased;
                pushed = &mut pushing => match pushed {
                    Ok((made, count, result)) => {
                        let paced: Vec<&Paced> = paced.iter().collect();
                        let have_ended = count > 1 && patience.wait(&paced, &mut taking).await.is_some();
                        if count > 1 && !have_ended {
                            tokens.iter().for_each(CancellationToken::cancel);
                        }
                        if !have_ended {
                            taking.await;
                        }
                        Ok((made, result))
                    }
                    Err(error) => Err(error),
                },
                _ = &mut taking => Err(anyhow::anyhow!("no store takes it any longer")),
            }
        };
        match passed {
            Ok((made, result)) => {
                self.record(made)?;
                Ok(result)
            }
            // What the stores say is the cause of the other error.
            Err(error) => Err(self.ensure_one_takes_it().err().unwrap_or(error)),
        }
    }

    /// Records what the lanes have made.
    fn record(&mut self, made: Vec<(Vec<usize>, Stored)>) -> Result<()> {
        for (outlets, stored) in made {
            for number in outlets {
                let Some(outlet) = self.outlets.get_mut(number).filter(|outlet| outlet.failure.is_none()) else { continue };
                // A piece that a store has missed would make a shorter object of it.
                match outlet.taken_bytes == stored.bytes {
                    true => outlet.stored = Some(stored.clone()),
                    false => {
                        let said = format!("it has taken {} of {} bytes", outlet.taken_bytes, stored.bytes);
                        outlet.failure = Some(anyhow::anyhow!(said));
                    }
                }
            }
        }
        self.ensure_one_takes_it()
    }

    /// The object as the first store has it that took all of it.
    pub fn first_stored(&self) -> Option<&Stored> {
        self.outlets.iter().find_map(|outlet| outlet.stored.as_ref())
    }

    /// Leaves nothing of what is not finished.
    pub async fn abort(&mut self) {
        let are_several = self.outlets.len() > 1;
        let aborting = self.outlets.iter_mut().filter_map(|outlet| outlet.upload.as_mut()).map(|upload| async move {
            if !are_several {
                upload.abort().await;
            } else if timeout(ABORT_LONGEST, upload.abort()).await.is_err() {
                tracing::warn!("could not abort an upload in {} s: it stays until the next run", ABORT_LONGEST.as_secs());
            }
        });
        join_all(aborting).await;
    }
}

impl Outlet {
    fn of(store: &Store) -> Self {
        let keys = Arc::clone(store.age_keys());
        Self {
            keys,
            is_paced: store.is_paced(),
            paced: Paced::default(),
            upload: None,
            taken_bytes: 0,
            stored: None,
            failure: None,
        }
    }

    fn takes(&self) -> bool {
        self.upload.is_some() && self.failure.is_none()
    }

    async fn take(&mut self, mut pieces: mpsc::Receiver<Bytes>, given_up: CancellationToken) {
        let Some(upload) = &mut self.upload else { return };
        while let Some(piece) = pieces.recv().await {
            let bytes = piece.len() as u64;
            let writing = async {
                self.paced.count(upload.keep_pace(piece.len())).await;
                upload.write_at_once(piece).await
            };
            match given_up.run_until_cancelled(writing).await {
                Some(Ok(())) => self.taken_bytes += bytes,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return;
                }
                None => break,
            }
        }
        if given_up.is_cancelled() {
            let message = match self.is_paced {
                true => {
                    "it took so long that the other stores had to wait for it, and was left out. When three quarters of the job's `timeout` have passed, \
                     nobody waits for its max_upload any longer: raise one of them"
                }
                false => "it took so long that the other stores had to wait for it, and was left out",
            };
            self.failure = Some(Fault::new(Kind::Unreachable, message).into());
        }
    }

    /// Makes the object visible, durable and complete.
    pub async fn finish(&mut self) -> Result<()> {
        match (&mut self.upload, &self.stored) {
            (Some(upload), Some(_)) => upload.finish().await,
            _ => anyhow::bail!("not all of it was taken"),
        }
    }
}

/// Where pieces are pushed. Stores with the same recipients get the same bytes, encrypted once.
pub struct Lanes {
    lanes: Vec<Lane>,
    patience: Patience,
}

struct Lane {
    recipients: Vec<String>,
    encryptor: Encryptor,
    bytes: u64,
    hash: Sha256,
    blocks: blocks::Hasher,
    outlets: Vec<usize>,
    /// Those of the outlets that still take pieces.
    sinks: Vec<Sink>,
}

struct Sink {
    outlet: usize,
    sender: mpsc::Sender<Bytes>,
    given_up: CancellationToken,
    paced: Paced,
}

impl Lanes {
    fn add(&mut self, keys: &AgeKeys, sink: Sink) -> Result<()> {
        let recipients: Vec<String> = keys.recipients.iter().map(Recipient::to_string).collect();
        let lane = match self.lanes.iter_mut().find(|lane| lane.recipients == recipients) {
            Some(lane) => lane,
            None => {
                let encryptor = Encryptor::to(&keys.recipients)?;
                let (hash, blocks) = (Sha256::new(), blocks::Hasher::default());
                self.lanes.push(Lane { recipients, encryptor, bytes: 0, hash, blocks, outlets: vec![], sinks: vec![] });
                self.lanes.last_mut().ok_or_else(|| anyhow::anyhow!("a lane was just added"))?
            }
        };
        lane.outlets.push(sink.outlet);
        lane.sinks.push(sink);
        Ok(())
    }

    /// Passes a piece of the contents on to all stores that still take some.
    pub async fn push(&mut self, contents: Bytes) -> Result<()> {
        let mut count = self.count();
        for lane in self.lanes.iter_mut().filter(|lane| !lane.sinks.is_empty()) {
            let stored = lane.encryptor.push(contents.clone())?;
            lane.pass_on(stored, self.patience, &mut count).await;
        }
        anyhow::ensure!(count > 0, "no store takes it any longer");
        Ok(())
    }

    /// Passes the rest on. Returns what was made, with the numbers of the outlets, and how many still take pieces.
    async fn finish(mut self) -> Result<(Vec<(Vec<usize>, Stored)>, usize)> {
        let mut count = self.count();
        let mut made = Vec::new();
        for lane in &mut self.lanes {
            let (rest, encryption) = std::mem::take(&mut lane.encryptor).finish()?;
            lane.pass_on(rest, self.patience, &mut count).await;
            let sha256 = hex::encode(std::mem::take(&mut lane.hash).finalize());
            let blocks = std::mem::take(&mut lane.blocks).finish();
            made.push((lane.outlets.clone(), Stored { bytes: lane.bytes, sha256, blocks, encryption }));
        }
        Ok((made, count))
    }

    /// The number of stores that still take pieces.
    fn count(&self) -> usize {
        self.lanes.iter().map(|lane| lane.sinks.len()).sum()
    }
}

impl Lane {
    /// Leaves out stores that have failed; and those for which others would wait too long. The last one has all the time that it needs.
    async fn pass_on(&mut self, stored: Bytes, patience: Patience, count: &mut usize) {
        if stored.is_empty() {
            return;
        }
        self.hash.update(&stored);
        self.blocks.push(&stored);
        self.bytes += stored.len() as u64;
        let mut left = Vec::with_capacity(self.sinks.len());
        for sink in self.sinks.drain(..) {
            let sent = match *count {
                1 => sink.sender.send(stored.clone()).await.is_ok(),
                _ => match patience.wait(&[&sink.paced], sink.sender.send(stored.clone())).await {
                    Some(sent) => sent.is_ok(),
                    None => {
                        sink.given_up.cancel();
                        false
                    }
                },
            };
            match sent {
                true => left.push(sink),
                false => *count -= 1,
            }
        }
        self.sinks = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Rate;
    use crate::store::dir::Dir;

    /// The last piece waits for eight seconds, and nobody waits for a store for more than four.
    #[tokio::test]
    async fn a_store_that_keeps_to_its_max_upload_is_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let dir = |name: &str| Dir::new(&folder.path().join(name));
        let stores = [Store::Dir(dir("slow").paced(Some(Rate(25_000)))), Store::Dir(dir("near"))];
        let mut fan_out = FanOut { patience: Patience::short(Duration::from_secs(4)), ..FanOut::default() };
        for store in &stores {
            let mut outlet = Outlet::of(store);
            outlet.upload = Some(store.upload("dump", 400_000).await.unwrap());
            fan_out.outlets.push(outlet);
        }
        let push = async |mut lanes: Lanes| {
            for piece in 0..2 {
                lanes.push(Bytes::from(vec![piece; 200_000])).await?;
            }
            Ok((lanes, ()))
        };
        fan_out.pass(push).await.unwrap();
        for outlet in &mut fan_out.outlets {
            assert!(outlet.failure.is_none(), "{:?}", outlet.failure);
            outlet.finish().await.unwrap();
        }
        for store in &stores {
            assert_eq!(store.stat("dump").await.unwrap().unwrap().bytes, 400_000);
        }
    }
}
