//! What was proved of a set and what was not, in sentences, from what is recorded. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::base::units;
use crate::store::sign::Signature;
use crate::task::backup::copies::together::Refused;
use crate::task::backup::how_proved::HowProved;
use crate::task::backup::manifest::Globals;
use crate::task::backup::set::Set;
use crate::task::backup::verdict::{Bytes, BytesCheck, RestoreCheck};

/// What the copies of the set in all stores say of it.
#[derive(Debug, Default)]
pub struct Elsewhere<'a> {
    /// What one of them was refused for, which holds for all.
    pub refused: Option<Refused<'a>>,
    /// The stores that may have a copy, and could not be read, each with the reason.
    pub unread: &'a [(String, String)],
}

/// `2026-11-29 19:41:07 UTC`
pub fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The name under which a server of its own is recorded.
const OWN_SERVER: &str = "a server of its own";

/// What holds, each in a sentence with its date.
pub fn proved(set: &Set, now: DateTime<Utc>) -> Vec<String> {
    let verification = &set.verification;
    let read = verification.bytes.iter().filter(|check| check.verdict == Bytes::Intact).map(|check| read_back(set, check));
    let restored = verification.restores.iter().filter(|check| check.is_proof(now));
    read.chain(restored.map(restored_in_words)).collect()
}

/// What nobody has proved, or what was found to be otherwise.
pub fn not_proved(set: &Set, signature: Signature, elsewhere: &Elsewhere<'_>, now: DateTime<Utc>) -> Vec<String> {
    let (verification, manifest) = (&set.verification, &set.manifest);
    let mut said = Vec::new();
    if set.is_adopted() {
        said.push("Who made the dump, when, from which server, and whether it is the whole database: it was adopted.".to_owned());
    }
    said.extend(unproved_bytes(set));
    let done: Vec<&RestoreCheck> = verification.restores.iter().filter(|check| check.is_proof(now)).collect();
    if done.is_empty() {
        said.push("That it can be restored: no server has restored it.".to_owned());
    }
    let ahead = verification.restores.iter().filter(|check| check.refusal.is_none() && check.is_dated_ahead(now));
    said.extend(ahead.map(|check| {
        let at = moment(check.checked_at);
        format!(
            "Anything by the restore on {}: it is dated in the future, on {at}. A clock was wrong then, or is now.",
            on(check)
        )
    }));
    let refused = elsewhere.refused;
    said.extend(refused.map(|refused| refused_in_words(&refused, set)));
    let is_said = |check: &RestoreCheck| refused.is_some_and(|refused| refused.check.is_one_with(check));
    said.extend(verification.restores.iter().filter(|check| !is_said(check)).filter_map(|check| {
        let refusal = check.refusal.as_ref()?;
        let copy = check.copy_in.as_ref().map(|store| format!(" as the copy in {store}")).unwrap_or_default();
        Some(format!("That {} takes it: it refused it{copy} on {}: {refusal}.", on(check), moment(check.checked_at)))
    }));
    let unread = elsewhere.unread.iter();
    said.extend(unread.map(|(store, why)| format!("That no copy of it in {store} was refused for its data: {why}.")));
    let asked = |has: &dyn Fn(&HowProved) -> bool| done.iter().filter_map(|check| check.how.as_ref()).any(has);
    if !asked(&|how| how.expect_count > 0) {
        said.push("That the data is what it should be: no query of `expect` was asked of a restored copy.".to_owned());
    }
    if !asked(&|how| how.amcheck.is_some()) {
        said.push("That heaps and indexes of the copy are sound: amcheck has not read them.".to_owned());
    }
    if !done.is_empty() && !asked(&HowProved::has_hashed) {
        said.push("That the values in a restored copy are those of the set: its rows were counted, and not hashed.".to_owned());
    }
    if !done.is_empty() && done.iter().all(|check| check.without_vector_indexes) {
        said.push("That its vector indexes can be built: the restores left them out.".to_owned());
    }
    let mut not_tried: Vec<&String> = Vec::new();
    for what in done.iter().filter_map(|check| check.how.as_ref()).flat_map(|how| &how.not_tried) {
        if !not_tried.contains(&what) {
            not_tried.push(what);
        }
    }
    let mut only_counted: Vec<&String> = Vec::new();
    for table in done.iter().filter_map(|check| check.how.as_ref()?.hashed.as_ref()).flat_map(|hashed| &hashed.only_counted) {
        if !only_counted.contains(&table) {
            only_counted.push(table);
        }
    }
    said.extend(only_counted.iter().map(|table| format!("Counted in a restored copy, and not compared by its values: {table}.")));
    said.extend(not_tried.iter().map(|what| format!("Left out of a restore: {what}.")));
    said.extend(set.listed.globals_problem.iter().map(|why| format!("That roles and tablespaces can be had from it: {why}.")));
    said.push(match &manifest.globals {
        Globals::Object { .. } => {
            "That roles and tablespaces of the server (the globals) can be restored: pgtend never runs them.".to_owned()
        }
        Globals::Absent { reason } => format!("Roles and tablespaces of the server are not in the set: {reason}."),
    });
    if !manifest.filters.are_none() {
        said.push("Anything of the parts of the database that its job leaves out.".to_owned());
    }
    if signature == Signature::NotAsked {
        said.push(
            "That nobody changed the set and its record together: the store has no key, and whoever can write to it can do that."
                .to_owned(),
        );
    }
    said
}

/// The refusal that holds now, of this copy or of another one.
fn refused_in_words(refused: &Refused<'_>, set: &Set) -> String {
    let Refused { check, copy_in } = refused;
    format!(
        "That its data can be restored: {} refused them in the copy in {copy_in} on {}, and no restore that succeeded was recorded after that: {}.",
        on(check),
        moment(check.checked_at),
        refused.words_beside(set)
    )
}

fn unproved_bytes(set: &Set) -> Option<String> {
    let Some(check) = &set.verification.bytes else {
        return Some("That its bytes are those that were written: nobody has read it back.".to_owned());
    };
    match (check.verdict, &check.not_decoded) {
        (Bytes::Damaged, _) => {
            Some(format!("ITS BYTES ARE DAMAGED, as was found on {}: {}.", moment(check.checked_at), check.problems.join("; ")))
        }
        (Bytes::Unknown, _) => Some(format!(
            "That its bytes are those that were written: the read on {} led to no result.",
            moment(check.checked_at)
        )),
        (Bytes::Intact, Some(why)) => Some(format!("What is inside its encryption, by that read: {why}.")),
        (Bytes::Intact, None) => None,
    }
}

fn read_back(set: &Set, check: &BytesCheck) -> String {
    let (at, manifest) = (moment(check.checked_at), &set.manifest);
    let what = match &check.not_decoded {
        Some(_) => "their length and their SHA-256 match the manifest".to_owned(),
        None => format!(
            "decoded and counted; length, SHA-256, every compressed member, pg_dump's last line and the rows of each table match the manifest ({})",
            manifest.holds_in_words()
        ),
    };
    format!("All stored bytes were read back on {at}, {what}{}.", by(check.pgtend_version.as_deref()))
}

fn restored_in_words(check: &RestoreCheck) -> String {
    let what = match &check.copy_in {
        None => "It".to_owned(),
        Some(store) => format!("The copy of it in {store}, which has the same bytes,"),
    };
    let mut said = format!("{what} was restored on {} in {}", moment(check.checked_at), on(check));
    match &check.how {
        Some(how) => said += &asked_in_words(how),
        None => said += "; each table was counted there. What else that copy was asked was not recorded then",
    }
    if let Some(seconds) = check.restore_seconds {
        said += &format!("; it took {}", units::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()));
    }
    said + &by(check.how.as_ref().map(|how| how.pgtend_version.as_str())) + "."
}

fn asked_in_words(how: &HowProved) -> String {
    let (tables, rows) = (units::plural(how.tables, "table"), units::plural(how.rows, "row"));
    let numbers = if how.is_sealed { String::new() } else { format!(" ({tables}, {rows})") };
    let mut said = format!("; each table was counted there and has the rows of the manifest{numbers}");
    match how.hashed.as_ref().filter(|_| how.has_hashed()) {
        Some(_) if how.is_sealed => said += "; values were hashed there, and are those of the dump: of how many tables is sealed",
        Some(hashed) => {
            let (tables, rows) = (units::plural(hashed.tables, "table"), units::plural(hashed.rows, "row"));
            said += &format!("; the values of {tables} ({rows}) were hashed there, and are those of the dump");
        }
        None => {}
    }
    said += &queries(how);
    match how.amcheck {
        Some(_) if how.is_sealed => said += "; amcheck read tables and indexes there and found nothing",
        Some(checked) => {
            let (tables, indexes) = (units::plural(checked.tables, "table"), units::plural(checked.indexes, "index"));
            said += &format!("; amcheck read {tables} and {indexes} there and found nothing");
        }
        None => {}
    }
    said
}

fn queries(how: &HowProved) -> String {
    if how.expect_count == 0 {
        return String::new();
    }
    let queries = units::plural(how.expect_count, "query");
    let verb = if how.expect_count == 1 { "was" } else { "were" };
    let texts = if how.expect.is_empty() { String::new() } else { format!(": {}", how.expect.join("; ")) };
    format!("; {queries} of `expect` {verb} true there{texts}")
}

fn on(check: &RestoreCheck) -> String {
    match (check.server.as_str(), check.version.as_str()) {
        (OWN_SERVER, version) => format!("a PostgreSQL {version} of its own"),
        (server, "") => server.to_owned(),
        (server, version) => format!("a scratch database on {server} (PostgreSQL {version})"),
    }
}

fn by(version: Option<&str>) -> String {
    version.map(|version| format!(" (pgtend {version})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::task::backup::how_proved::{Amchecked, Hashed};
    use crate::task::backup::manifest::tests::manifest;
    use crate::task::backup::restore_check::tests::now;
    use crate::task::backup::verdict::Verification;

    fn set(verification: Verification) -> Set {
        Set {
            name: "app/nightly/2026-11-23T02-00-00Z".parse().unwrap(),
            manifest: manifest(),
            verification,
            holds: vec![],
            listed: Default::default(),
        }
    }

    fn restored(how: Option<HowProved>) -> RestoreCheck {
        RestoreCheck {
            server: OWN_SERVER.to_owned(),
            version: "18.4".to_owned(),
            checked_at: "2026-11-23T03:00:00Z".parse().unwrap(),
            refusal: None,
            refused_for_its_data: false,
            sql_state: None,
            elapsed_seconds: 9.0,
            restore_seconds: Some(4.0),
            without_vector_indexes: false,
            copy_in: None,
            how,
        }
    }

    #[test]
    fn of_a_set_that_nobody_has_read_nothing_is_proved() {
        let set = set(Verification::default());
        assert_eq!(proved(&set, now()), Vec::<String>::new());
        let said = not_proved(&set, Signature::NotAsked, &Elsewhere::default(), now()).join("\n");
        for expected in ["nobody has read it back", "no server has restored it", "`expect`", "amcheck", "the store has no key"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn a_restore_is_certified_with_what_its_copy_was_asked() {
        let how = HowProved {
            is_sealed: false,
            pgtend_version: "0.9.0".to_owned(),
            tables: 2,
            rows: 3,
            hashed: Some(Hashed {
                tables: 1,
                rows: 2,
                only_counted: vec!["public.b: column p has values of type money".to_owned()],
            }),
            expect_count: 1,
            expect: vec!["SELECT true".to_owned()],
            amcheck: Some(Amchecked { tables: 2, indexes: 1 }),
            not_tried: vec!["subscriptions".to_owned()],
        };
        let verification = Verification { restores: vec![restored(Some(how))], ..Verification::default() };
        let set = set(verification);
        assert_eq!(
            proved(&set, now()),
            [
                "It was restored on 2026-11-23 03:00:00 UTC in a PostgreSQL 18.4 of its own; each table was counted there and has the rows of the \
              manifest (2 tables, 3 rows); the values of 1 table (2 rows) were hashed there, and are those of the dump; 1 query of `expect` was true there: SELECT true; amcheck read 2 tables and 1 index there and found \
              nothing; it took 4.0 s (pgtend 0.9.0)."
            ]
        );
        let said = not_proved(&set, Signature::Valid, &Elsewhere::default(), now()).join("\n");
        assert!(said.contains("Left out of a restore: subscriptions."), "{said}");
        assert!(said.contains("not compared by its values: public.b: column p has values of type money."), "{said}");
        for unexpected in ["no server", "not hashed", "`expect`", "amcheck", "no key"] {
            assert!(!said.contains(unexpected), "{unexpected}: {said}");
        }
    }

    #[test]
    fn a_refusal_of_another_copy_is_certified_without_the_server_s_words_beside_an_encrypted_one() {
        let check = RestoreCheck { refusal: Some("SECRET".to_owned()), refused_for_its_data: true, ..restored(None) };
        let unread = [("away".to_owned(), "it does not answer".to_owned())];
        let elsewhere = Elsewhere { refused: Some(Refused { check: &check, copy_in: "two" }), unread: &unread };
        let mut set = set(Verification { restores: vec![restored(None)], ..Verification::default() });
        let said = not_proved(&set, Signature::Valid, &elsewhere, now()).join("\n");
        let expected = "refused them in the copy in two on 2026-11-23 03:00:00 UTC, and no restore that succeeded was recorded after that: SECRET.";
        assert!(said.contains(expected) && said.contains("in away was refused for its data: it does not answer."), "{said}");
        set.verification.restores.push(RestoreCheck { refusal: Some("hidden".to_owned()), ..check.clone() });
        let said = not_proved(&set, Signature::Valid, &elsewhere, now()).join("\n");
        assert!(said.matches("hidden").count() == 1 && !said.contains("SECRET"), "{said}");
    }

    #[test]
    fn a_restore_that_is_dated_in_the_future_is_not_certified() {
        let ahead = RestoreCheck { checked_at: now() + chrono::TimeDelta::days(5), ..restored(None) };
        let set = set(Verification { restores: vec![ahead], ..Verification::default() });
        assert_eq!(proved(&set, now()), Vec::<String>::new());
        let said = not_proved(&set, Signature::Valid, &Elsewhere::default(), now()).join("\n");
        assert!(said.contains("no server has restored it") && said.contains("is dated in the future, on 2026-11-28"), "{said}");
    }

    #[test]
    fn what_earlier_releases_did_not_record_is_not_made_up() {
        let verification = Verification { restores: vec![restored(None)], ..Verification::default() };
        let said = proved(&set(verification), now()).join("\n");
        assert!(said.contains("was not recorded then") && !said.contains("rows of the manifest"), "{said}");
        let set = set(Verification { restores: vec![restored(Some(HowProved::default()))], ..Verification::default() });
        let said = not_proved(&set, Signature::Valid, &Elsewhere::default(), now()).join("\n");
        assert!(said.contains("its rows were counted, and not hashed"), "{said}");
    }
}
