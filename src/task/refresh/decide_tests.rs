use super::super::mark::Mark;
use super::super::tests::keys;
use super::*;
use crate::base::units::Span;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn place(identifier: &str, database: &str, oid: i64) -> Place {
    let system_identifier = (!identifier.is_empty()).then(|| identifier.to_owned());
    Place { system_identifier, database: database.to_owned(), oid: Some(oid) }
}

fn set(time: &str, bytes: Bytes) -> Candidate {
    Candidate {
        name: format!("app/nightly/{time}"),
        taken_at: at(time),
        bytes,
        is_from_the_future: false,
        from: place("1", "app", 10),
        series: Some("1/app".parse().unwrap()),
    }
}

fn state() -> State {
    State {
        clock: at("2026-11-29T12:00:00Z"),
        target: place("2", "staging", 20),
        in_recovery: false,
        sessions: Vec::new(),
        sources: vec![("nightly".to_owned(), place("1", "app", 10))],
        ledger: Some(place("3", "history", 30)),
        made: Vec::new(),
        sets: vec![set("2026-11-28T02:00:00Z", Bytes::Intact), set("2026-11-29T02:00:00Z", Bytes::Intact)],
    }
}

#[test]
fn a_database_that_is_backed_up_is_never_the_target_however_it_is_named() {
    let session = Session { pid: 7, role: "app".into(), application: "psql".into(), is_of_pgtend: false, is_readable: true };
    let cases: [(&str, State, Option<Kind>, &str); 12] = [
        ("its own server", state(), None, ""),
        ("one cluster, two databases", State { target: place("1", "staging", 20), ..state() }, None, ""),
        (
            "the database of a job",
            State { target: place("1", "app", 10), ..state() },
            Some(Kind::Configuration),
            "job `nightly` backs it up",
        ),
        (
            "renamed since",
            State { target: place("1", "app2", 10), sources: vec![], ..state() },
            Some(Kind::Configuration),
            "was taken from it",
        ),
        (
            "made anew under its name",
            State { target: place("1", "app", 99), sources: vec![], ..state() },
            Some(Kind::Configuration),
            "was taken from it",
        ),
        (
            "the ledger's",
            State { target: place("3", "history", 30), ..state() },
            Some(Kind::Configuration),
            "the ledger is in it",
        ),
        ("unknown target", State { target: place("", "staging", 20), ..state() }, Some(Kind::Configuration), "pg_control_system"),
        (
            "unknown source",
            State { sources: vec![("nightly".into(), place("", "app", 10))], ..state() },
            Some(Kind::Configuration),
            "cannot be told from the database app",
        ),
        ("postgres", State { target: place("2", "postgres", 5), ..state() }, Some(Kind::Configuration), "of the server itself"),
        ("a standby", State { in_recovery: true, ..state() }, Some(Kind::Configuration), "a standby"),
        ("in use", State { sessions: vec![session.clone()], ..state() }, Some(Kind::Deferred), "1 session in it, 7 (app, psql)"),
        (
            "in use and a source",
            State { sessions: vec![session], target: place("1", "app", 10), ..state() },
            Some(Kind::Configuration),
            "backs it up",
        ),
    ];
    for (what, state, kind, said) in cases {
        let refused = refusal(&state, &keys());
        assert_eq!(refused.as_ref().and_then(|refusal| refusal.kind), kind, "{what}: {refused:?}");
        assert!(refused.is_none_or(|refusal| refusal.message.contains(said)), "{what}");
    }
}

#[test]
fn sessions_matter_only_to_a_swap_that_may_not_terminate_them() {
    let session = Session { pid: 7, role: "app".into(), application: String::new(), is_of_pgtend: false, is_readable: true };
    let state = State { sessions: vec![session], ..state() };
    for (swap, terminate, refused) in [(true, false, true), (true, true, false), (false, false, false)] {
        assert_eq!(refusal(&state, &Refresh { swap, terminate, ..keys() }).is_some(), refused, "{swap} {terminate}");
    }
}

#[test]
fn the_newest_set_that_may_be_restored_is_taken_unless_it_is_too_old() {
    let (day_28, day_29) = ("2026-11-28T02:00:00Z", "2026-11-29T02:00:00Z");
    let sets = |newest: Bytes| vec![set(day_28, Bytes::Intact), set(day_29, newest)];
    let span = |text: &str| Some(Span::try_from(text.to_owned()).unwrap());
    let future = vec![set(day_28, Bytes::Intact), Candidate { is_from_the_future: true, ..set(day_29, Bytes::Intact) }];
    let two =
        vec![set(day_28, Bytes::Intact), Candidate { series: Some("9/app".parse().unwrap()), ..set(day_29, Bytes::Intact) }];
    for (what, sets, which, max_age, chosen, said) in [
        ("proved", sets(Bytes::Intact), Sets::Proved, None, Some(1), ""),
        ("not read", sets(Bytes::Unknown), Sets::Proved, None, Some(0), "nobody has read it back"),
        ("complete is enough", sets(Bytes::Unknown), Sets::Complete, None, Some(1), ""),
        ("damaged", sets(Bytes::Damaged), Sets::Complete, None, Some(0), "damaged"),
        ("future", future, Sets::Proved, None, Some(0), "future"),
        ("young enough", sets(Bytes::Intact), Sets::Proved, span("12h"), Some(1), ""),
        ("too old", sets(Bytes::Intact), Sets::Proved, span("9h"), None, "is 10 h 0 min old, and max_age is 9h"),
        ("too old behind one that is passed", sets(Bytes::Damaged), Sets::Proved, span("1d"), None, "passed over"),
        ("none", vec![], Sets::Proved, None, None, "there is none"),
        ("of two servers", two, Sets::Proved, None, None, "of several servers"),
    ] {
        let found = choose(&State { sets, ..state() }, &Refresh { sets: which, max_age, ..keys() });
        assert_eq!(found.as_ref().ok().map(|(index, _)| *index), chosen, "{what}: {found:?}");
        let words = found.map_or_else(|refusal| refusal.message, |(_, notes)| notes.join("; "));
        assert!(words.contains(said), "{what}: {words}");
    }
}

fn made(what: What, at_time: &str, oid: i64, replaced_by: Option<i64>) -> Made {
    let mark = Mark {
        what,
        target: "staging".into(),
        job: "refresh".into(),
        run: Some(4),
        at: at(at_time),
        replaced_by,
        keep_seconds: None,
        comment: None,
    };
    Made { name: format!("d{oid}"), oid, mark, is_ours: true, is_believed: true, sessions: 0, sessions_of_pgtend: 0 }
}

#[test]
fn a_database_of_an_earlier_run_goes_only_on_a_positive_answer() {
    let (recent, long_ago) = ("2026-11-28T12:00:00Z", "2026-11-20T12:00:00Z");
    let replaced = made(What::Old, long_ago, 1, Some(20));
    let before_that = made(What::Old, "2026-11-19T12:00:00Z", 2, Some(1));
    let clock = at("2026-11-29T12:00:00Z");
    let drill = Refresh { swap: false, ..keys() };
    let kept_for = |seconds: u64, made: Made| {
        let mark = Mark { keep_seconds: Some(seconds), ..made.mark.clone() };
        Made { mark, ..made }
    };
    let forged = Made { is_believed: false, ..replaced.clone() };
    for (what, found, keys, dropped, said) in [
        ("a leftover", vec![made(What::Copy, recent, 1, None)], keys(), vec![1], ""),
        (
            "a leftover at work",
            vec![Made { sessions_of_pgtend: 1, ..made(What::Copy, recent, 1, None) }],
            keys(),
            vec![],
            "connected",
        ),
        ("a looker-on", vec![Made { sessions: 1, ..made(What::Copy, recent, 1, None) }], keys(), vec![1], ""),
        ("a failed one", vec![made(What::Failed, recent, 1, None)], keys(), vec![], ""),
        ("a failed one after its time", vec![made(What::Failed, long_ago, 1, None)], drill.clone(), vec![1], ""),
        ("an old one", vec![made(What::Old, recent, 1, Some(20))], keys(), vec![], ""),
        ("an old one after its time", vec![replaced.clone()], keys(), vec![1], ""),
        ("two of them, the one that proves the other last", vec![replaced.clone(), before_that.clone()], keys(), vec![2, 1], ""),
        ("another target meanwhile", vec![made(What::Old, long_ago, 1, Some(99))], keys(), vec![], "did not come by a refresh"),
        ("only an older one", vec![before_that], keys(), vec![], "did not come by a refresh"),
        ("in use", vec![Made { sessions: 1, ..replaced.clone() }], keys(), vec![], "connected"),
        ("of another role", vec![Made { is_ours: false, ..replaced.clone() }], keys(), vec![], "another role"),
        ("kept for longer by its own job", vec![kept_for(365 * 86_400, replaced.clone())], keys(), vec![], ""),
        ("kept for less by its own job", vec![kept_for(60, made(What::Old, recent, 1, Some(20)))], keys(), vec![1], ""),
        (
            "a failed one, kept for longer",
            vec![kept_for(365 * 86_400, made(What::Failed, long_ago, 1, None))],
            drill.clone(),
            vec![],
            "",
        ),
        ("a stranger's", vec![forged.clone()], keys(), vec![], "is not believed"),
        (
            "one that only a stranger's vouches for",
            vec![Made { oid: 3, ..forged }, made(What::Old, long_ago, 1, Some(99))],
            keys(),
            vec![],
            "did not come by a refresh",
        ),
        ("a drill", vec![replaced.clone()], drill, vec![], ""),
        ("in the future", vec![made(What::Old, "2027-11-28T12:00:00Z", 1, Some(20))], keys(), vec![], ""),
    ] {
        let decided = drops(&found, Some(20), &keys, clock);
        assert_eq!(decided.drops.iter().map(|drop| drop.oid).collect::<Vec<_>>(), dropped, "{what}");
        assert!(decided.notes.join("; ").contains(said), "{what}: {:?}", decided.notes);
    }
    assert!(drops(&[replaced], None, &keys(), clock).drops.is_empty(), "no target, no answer");
}
