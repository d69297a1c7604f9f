//! `pgtend backups copy`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use clap::Args;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Found, NoneMeant, find_copies};
use super::nearness::{judge, on_the_first_good, that_open};
use crate::base::age_keys::{MAX_RECIPIENTS, Recipient};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::cli::signals::or_cancelled;
use crate::config::Config;
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::copies::copy::{Copied, Copy};
use crate::task::backup::copies::holds;
use crate::task::backup::copies::several::{ensure_answers, ensure_apart};
use crate::task::backup::latest::Choice;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups copy latest --to offsite
  pgtend backups copy latest --to offsite --dry-run            what would be sent
  pgtend backups copy latest --to partner --encrypt-to store   for the keys of that store")]
pub struct Arguments {
    /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
    set: String,
    /// The store that it is copied to
    #[arg(long, value_name = "STORE")]
    to: String,
    /// The store that it is copied from; by default the nearest that has an intact copy
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// Only a set of this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Only a set of this job
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Encrypt the copy for this public key (age1…, ssh-ed25519 …, ssh-rsa …) in place of what the stores say; several times for several. The word `store`: for
    /// the keys of the store that it goes to. To open a set that is encrypted takes `identity_file` of the store that it comes from
    #[arg(long, value_name = "KEY")]
    encrypt_to: Vec<String>,
    /// Also where that store has the set for others: the new copy takes the place of that one
    #[arg(long, requires = "encrypt_to")]
    replace: bool,
    /// Also into a store that signs (sign_key_file), from one that does not: the copy is signed, whoever wrote the set
    #[arg(long)]
    unsigned_ok: bool,
    /// `latest`: also an older set, where newer ones are damaged, or may be in a store that cannot be read
    #[arg(long)]
    older_ok: bool,
    /// Print what would be copied; copy nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let config = global.load_config()?;
    let to = target(&config, &arguments.to).await?;
    let encrypt_to = recipients(&arguments.encrypt_to, &to)?;
    let mut sources = or_cancelled(cancel, sources(global, &config, arguments)).await?;
    if encrypt_to.is_some() {
        sources = or_cancelled(cancel, that_open(sources)).await?;
    }
    for found in &sources {
        let stores = [(found.store_name.as_str(), &found.store), (to.0.as_str(), &to.1)];
        or_cancelled(cancel, ensure_apart(&stores, !arguments.dry_run)).await?;
    }
    let copy_of = |found: &'_ Found| Copying {
        from: found.store_name.clone(),
        store: found.store.clone(),
        to: to.clone(),
        encrypt_to: encrypt_to.clone(),
    };
    if arguments.dry_run {
        let plan = or_cancelled(
            cancel,
            on_the_first_good(&sources, async |found| copy_of(found).as_copy(found, arguments).plan().await),
        );
        let plan = plan.await?.done;
        match global.json {
            true => print_json(&printed::Copy::Plan(&plan))?,
            false => print(&plan.to_string())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let progress = global.progress();
    // It stops by itself, and says how far it has come.
    let copied = on_the_first_good(&sources, async |found| {
        let copied = copy_of(found).as_copy(found, arguments).apply(&progress, cancel).await?;
        Ok((found.store_name.clone(), found.set.name.to_string(), copied))
    });
    let used = copied.await?;
    let (from, set, copied) = &used.done;
    print_copied(global, (set, from, &arguments.to), copied)?;
    if let Some(set) = &copied.set {
        let of_sources = sources.iter().map(|found| (found.store_name.as_str(), &found.store));
        let copies: Vec<_> = of_sources.chain([(to.0.as_str(), &to.1)]).collect();
        let united = or_cancelled(cancel, async { Ok(holds::unite(&set.name, &copies).await) });
        united.await?.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    judge(&used.passed_over, &progress, cancel).await;
    Ok(ExitCode::SUCCESS)
}

/// The word for the recipients of the store that a copy goes to.
const OF_STORE: &str = "store";

/// The stores of a copy, each with its name.
struct Copying {
    from: String,
    store: Store,
    to: (String, Store),
    encrypt_to: Option<Vec<Recipient>>,
}

impl Copying {
    fn as_copy<'a>(&'a self, found: &'a Found, arguments: &Arguments) -> Copy<'a> {
        Copy {
            set: &found.set,
            from: (&self.from, &self.store),
            to: (&self.to.0, &self.to.1),
            unsigned_ok: arguments.unsigned_ok,
            encrypt_to: self.encrypt_to.as_deref(),
            replace: arguments.replace,
            runs_are_over: false,
        }
    }
}

/// The recipients that were asked for. Nothing of what is no public key is shown: it may be a secret one.
fn recipients(asked: &[String], (name, store): &(String, Store)) -> Result<Option<Vec<Recipient>>> {
    let refused = |message: String| Fault::new(Kind::Configuration, message);
    let mut recipients: Vec<Recipient> = Vec::new();
    for text in asked {
        let of_store = &store.age_keys().recipients;
        match text.as_str() {
            OF_STORE if of_store.is_empty() => {
                return Err(refused(format!("--encrypt-to {OF_STORE}: store `{name}` has no `encrypt_to`")).into());
            }
            OF_STORE => recipients.extend(of_store.iter().cloned()),
            text => recipients.push(Recipient::parse(text).map_err(|why| refused(format!("what --encrypt-to names {why}")))?),
        }
    }
    let mut seen = BTreeSet::new();
    recipients.retain(|recipient| seen.insert(recipient.key()));
    let count = recipients.len();
    anyhow::ensure!(
        count <= MAX_RECIPIENTS,
        refused(format!("--encrypt-to: {count} recipients, and at most {MAX_RECIPIENTS} are taken"))
    );
    Ok((!recipients.is_empty()).then_some(recipients))
}

async fn target(config: &Config, name: &str) -> Result<(String, Store)> {
    if !config.stores.contains_key(name) {
        let names = config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
        let message = format!("the configuration has no store `{name}`; it has: {names}");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok((name.to_owned(), Store::named(config, name).await?))
}

/// The copies that it can be made of, the nearest intact one first.
async fn sources(global: &Global, config: &Config, arguments: &Arguments) -> Result<Vec<Found>> {
    let Arguments { set, to, from, database, job, unsigned_ok, older_ok, .. } = arguments;
    if from.as_ref() == Some(to) {
        return Err(Fault::new(Kind::Configuration, format!("--from and --to are both `{to}`")).into());
    }
    // What is in the other store may be damaged, or not be there, or be newer than all else: it is not what is asked for.
    let mut found = Vec::new();
    let elsewhere = from.iter().chain(config.stores.keys().filter(|name| from.is_none() && *name != to));
    let mut errors = Vec::new();
    let looking = elsewhere.map(|store| async move {
        let filter = Filter { store: Some(store.clone()), database: database.clone(), job: job.clone() };
        let choice = Choice { unsigned_ok: *unsigned_ok, older_ok: *older_ok || set != "latest", ..Choice::default() };
        let of_store = async {
            ensure_answers(&Store::named(config, store).await?).await?;
            find_copies(global, config, set, &filter, &choice).await
        };
        of_store.await.with_context(|| format!("store `{store}`"))
    });
    for copies in join_all(looking).await {
        match copies {
            Ok(copies) => found.extend(copies),
            Err(error) => errors.push(error),
        }
    }
    let nearness = super::nearness::Nearness::of(global);
    super::nearness::sort(&mut found, &nearness);
    if set == "latest" && !older_ok {
        let newest = found.first().map(|first| first.set.name.taken_at);
        if let Some(hides) = errors.iter().position(|error| may_hide_newer(error, newest)) {
            let error = errors.swap_remove(hides);
            let kind = failure::kind_of(&error).unwrap_or(Kind::Unreachable);
            let message = "which set is the latest is not known: name the set, choose a store with --from, or add --older-ok to take what can be read";
            return Err(error.context(Fault::new(kind, message)));
        }
    }
    if !found.is_empty() {
        errors.iter().for_each(|error| tracing::warn!("{}", failure::in_a_line(error)));
    }
    let Some(newest) = found.first().map(|first| first.set.name.clone()) else {
        let message = || Fault::new(Kind::Configuration, format!("no other store than `{to}` is configured"));
        return Err(errors.into_iter().next().unwrap_or_else(|| message().into()));
    };
    found.retain(|copy| copy.set.name == newest);
    super::find::are_of_one_set(&found)?;
    Ok(found)
}

/// Returns whether a store that gave this error may have a set that is newer than that.
fn may_hide_newer(error: &anyhow::Error, newest: Option<DateTime<Utc>>) -> bool {
    match error.chain().find_map(|cause| cause.downcast_ref::<NoneMeant>()) {
        Some(NoneMeant { newest: there, .. }) => *there > newest,
        None => true,
    }
}

fn print_copied(global: &Global, (set, from, to): (&str, &str, &str), copied: &Copied) -> Result<()> {
    let verification = copied.set.as_ref().map(|set| &set.verification);
    let encryption = copied.set.as_ref().and_then(|set| set.manifest.dump.encryption.as_ref());
    let recipients = encryption.map(|encryption| encryption.recipients.as_slice()).unwrap_or_default();
    if global.json {
        let Copied { was_there, sent_bytes, kept: ref kept_objects, .. } = *copied;
        let copied = printed::Copied { set, from, to, was_there, sent_bytes, kept_objects, recipients, verification };
        return print_json(&printed::Copy::Copied(copied));
    }
    let proved = verification.map(|verification| verification.in_words()).unwrap_or_default();
    let kept = match copied.kept.is_empty() {
        true => String::new(),
        false => format!("; {} there before and compared", copied.kept.join(", ")),
    };
    print(&match copied.was_there {
        true => format!("{set} is in {to} already: {proved}\n"),
        false => format!("{set} is copied from {from} to {to} ({} sent{kept}): {proved}\n", units::bytes(copied.sent_bytes)),
    })
}
