use super::*;

fn timed(name: &str, column: &str) -> Timed {
    Timed { schema: "public".to_owned(), name: name.to_owned(), column: column.to_owned(), rows: 1000.0, ..Timed::default() }
}

fn decided(contents: &Contents) -> (Vec<Does>, Vec<String>) {
    let (proposals, left_out) = for_tables("app", contents);
    (proposals.into_iter().map(|proposal| proposal.does).collect(), left_out.into_iter().map(|left| left.why).collect())
}

#[test]
fn tables_are_known_as_logs_by_the_words_of_their_names() {
    for (name, expected) in [
        ("execution_logs", true),
        ("ExecutionLogs", true),
        ("auditlog", true),
        ("audit_events", true),
        ("Odd Event", true),
        ("catalog", false),
        ("blogs", false),
        ("chat_history", false),
        ("orders", false),
        ("prevention", false),
    ] {
        assert_eq!(is_a_log(name), expected, "{name}");
    }
}

#[test]
fn the_time_of_a_row_is_when_it_was_made_and_not_when_it_changed() {
    let contents = Contents {
        timed: vec![timed("logs", "updated_at"), timed("logs", "day"), timed("logs", "createdAt")],
        ..Contents::default()
    };
    let expected = Does::Retention { table: "public.logs".to_owned(), column: "createdAt".to_owned() };
    assert_eq!(decided(&contents).0, [expected]);
    let contents = Contents { timed: vec![timed("logs", "updated_at")], ..Contents::default() };
    assert_eq!(decided(&contents).0, []);
}

#[test]
fn the_length_of_partitions_is_read_from_their_bounds() {
    let bounds = |from: &str, to: &str| format!("FOR VALUES FROM ('{from}') TO ('{to}')");
    for (found, expected) in [
        (vec![bounds("2026-01-01", "2026-02-01"), bounds("2026-02-01", "2026-03-01"), "DEFAULT".to_owned()], Some("month")),
        (vec![bounds("2026-03-29 00:00:00+01", "2026-03-30 00:00:00+02")], Some("day")),
        (vec![bounds("2026-01-01 05:00:00", "2026-01-01 06:00:00")], Some("hour")),
        (vec![bounds("2026-01-05", "2026-01-12")], Some("week")),
        (vec![bounds("2026-07-01", "2026-10-01")], Some("quarter")),
        (vec![bounds("2024-01-01", "2025-01-01")], Some("year")),
        (vec![bounds("2026-01-01", "2026-01-04")], None),
        (vec![bounds("2026-01-01", "2026-02-01"), bounds("2026-02-01", "2026-02-02")], None),
        (vec!["FOR VALUES FROM (MINVALUE) TO ('2026-01-01')".to_owned(), "DEFAULT".to_owned()], None),
        (vec![bounds("é", "\u{1f4a5}"), "FOR VALUES FROM (1) TO (2)".to_owned()], None),
    ] {
        assert_eq!(every(&found), expected, "{found:?}");
    }
}

#[test]
fn a_partitioned_table_gets_a_job_unless_pg_partman_keeps_it_or_its_key_is_no_time() {
    let events = Partitioned {
        schema: "public".to_owned(),
        name: "events".to_owned(),
        column: Some("at".to_owned()),
        strategy: "r".to_owned(),
        columns: 1,
        data_type: Some("date".to_owned()),
        bounds: Some(vec!["FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')".to_owned()]),
        ..Partitioned::default()
    };
    let of = |partitioned: &Partitioned, partman: Option<Vec<String>>| {
        decided(&Contents { partitioned: vec![partitioned.clone()], partman, ..Contents::default() })
    };
    let expected = Does::Partition { table: "public.events".to_owned(), column: "at".to_owned(), every: "month" };
    assert_eq!(of(&events, Some(Vec::new())), (vec![expected.clone()], Vec::new()));
    assert_eq!(of(&events, Some(vec!["public.others".to_owned()])).0, [expected]);
    assert_eq!(of(&events, Some(vec!["public.events".to_owned()])).1, ["pg_partman keeps its partitions"]);
    assert!(of(&events, None).1[0].contains("cannot be read"));
    let by_number = Partitioned { data_type: Some("integer".to_owned()), ..events.clone() };
    assert!(of(&by_number, Some(Vec::new())).1[0].contains("no time"));
    let by_two = Partitioned { columns: 2, ..events.clone() };
    assert!(of(&by_two, Some(Vec::new())).1[0].contains("several columns"));
    let by_expression = Partitioned { column: None, ..events.clone() };
    assert!(of(&by_expression, Some(Vec::new())).1[0].contains("an expression"));
    let by_list = Partitioned { strategy: "l".to_owned(), ..events };
    assert_eq!(of(&by_list, Some(Vec::new())), (Vec::new(), Vec::new()));
}

#[test]
fn vectors_get_a_job_with_the_metric_of_their_index_or_when_they_are_many() {
    let vector = |rows: f64, opclass: Option<&str>| Vector {
        schema: "public".to_owned(),
        name: "docs".to_owned(),
        column: "embedding".to_owned(),
        rows,
        method: opclass.map(|_| "hnsw".to_owned()),
        opclass: opclass.map(str::to_owned),
        ..Vector::default()
    };
    for (vector, expected) in [
        (vector(10.0, Some("vector_ip_ops")), Some(Some("inner_product"))),
        (vector(10.0, Some("halfvec_cosine_ops")), Some(Some("cosine"))),
        (vector(5000.0, None), Some(None)),
        (vector(10.0, None), None),
    ] {
        let (does, left_out) = decided(&Contents { vectors: vec![vector], ..Contents::default() });
        let metric = does.into_iter().next().map(|does| match does {
            Does::VectorIndex { metric, .. } => metric,
            other => panic!("{other:?}"),
        });
        assert_eq!(metric, expected);
        assert_eq!(left_out.len(), usize::from(expected.is_none()));
    }
}

#[test]
fn large_text_gets_one_job_for_each_table_and_the_sixth_table_none() {
    let text = |oid: i64, column: &str, size_bytes: i64| Text {
        schema: "public".to_owned(),
        name: format!("t{oid}"),
        column: column.to_owned(),
        oid,
        size_bytes,
    };
    let mut texts = vec![text(1, "body", 1 << 30), text(1, "title", 1 << 30)];
    texts.extend((2..8).map(|oid| text(oid, "body", 1 << 28)));
    texts.push(text(9, "body", 1 << 20));
    let (does, left_out) = decided(&Contents { texts, ..Contents::default() });
    assert_eq!((does.len(), left_out.len()), (5, 2));
    assert_eq!(does[0], Does::Compress { table: "public.t1".to_owned(), column: "body".to_owned() });
}
