use super::*;
use crate::ledger::report::Outcome;
use crate::run::notify::together::of_events;

/// A job, a database and an error whose names try to be more than text.
fn hostile() -> Message {
    let event = Event {
        job: "<!channel>".to_owned(),
        database: "@everyone **x** [click](http://evil.example)\r\nBcc: all@example.com".to_owned(),
        outcome: Some(Outcome::Failed),
        said: "<https://evil.example|click> & <@U123> @here </pre><a href=\"http://evil.example\">x</a> \"quoted\" \u{202e}txet"
            .to_owned(),
        run: Some(7),
        host: "db1".to_owned(),
        ..Event::default()
    };
    of_events(&[event])
}

fn long() -> Message {
    Message::new("200 runs failed", Severity::Bad, (0..200).map(|_| "<&>@*🔴\"\\".repeat(200)))
}

#[test]
fn slack_sees_no_mention_and_no_link() {
    let body = slack(&hostile());
    let text = body["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt;") && text.contains("&lt;@U123&gt;") && text.contains("&amp;"), "{text}");
    assert!(!text.contains('<') && !text.contains('>'), "{text}");
    assert_eq!((&body["mrkdwn"], &body["unfurl_links"]), (&json!(false), &json!(false)));
    let most = slack(&long());
    assert!(most["text"].as_str().unwrap().chars().count() <= SLACK_LETTERS);
    assert!(most["text"].as_str().unwrap().ends_with(" …"), "a cut text says so");
}

#[test]
fn discord_mentions_nobody_and_makes_no_link() {
    let body = discord(&hostile());
    assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
    assert_eq!(body.get("content"), None, "an embed mentions nobody");
    let title = body["embeds"][0]["title"].as_str().unwrap();
    assert!(title.contains(r"\@everyone \*\*x\*\* \[click\]\(http\://evil.example\)"), "{title}");
    let most = discord(&long());
    assert!(most["embeds"][0]["description"].as_str().unwrap().chars().count() <= DISCORD_LETTERS);
    assert!(most["embeds"][0]["title"].as_str().unwrap().chars().count() <= DISCORD_TITLE_LETTERS);
}

#[test]
fn teams_gets_a_card_of_plain_text_that_is_not_too_large() {
    let body = teams(&hostile());
    let card = &body["attachments"][0];
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    let blocks = card["content"]["body"].as_array().unwrap();
    assert!(
        blocks.len() >= 3 && blocks.iter().all(|block| block["type"] == "RichTextBlock"),
        "a TextBlock reads Markdown: {body}"
    );
    assert!(blocks[0]["inlines"][0]["text"].as_str().unwrap().contains("[click](http://evil.example)"), "as text: {body}");
    assert!(teams(&long()).to_string().len() <= 28_000, "{}", teams(&long()).to_string().len());
}

#[test]
fn telegram_gets_text_in_one_pre() {
    let body = telegram(&hostile(), "-100");
    let text = body["text"].as_str().unwrap();
    assert_eq!((text.matches("<pre>").count(), text.matches("</pre>").count()), (1, 1), "{text}");
    let inside = text.split("<pre>").nth(1).unwrap().strip_suffix("</pre>").unwrap();
    assert!(!inside.contains('<') && inside.contains("&lt;/pre&gt;&lt;a href"), "{inside}");
    assert_eq!((&body["chat_id"], &body["parse_mode"]), (&json!("-100"), &json!("HTML")));
    let most = telegram(&long(), "-100");
    let parsed = most["text"].as_str().unwrap().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    assert!(parsed.encode_utf16().count() <= TELEGRAM_UNITS + "<b></b><pre></pre>".len(), "{}", parsed.encode_utf16().count());
}

#[test]
fn ntfy_gets_its_topic_and_no_header_of_others() {
    let url = Url::parse("https://ntfy.example/alerts/").unwrap();
    let (server, body) = ntfy(&hostile(), &url).unwrap();
    assert_eq!(server.as_str(), "https://ntfy.example/");
    assert_eq!((&body["topic"], &body["priority"]), (&json!("alerts"), &json!(5)));
    assert!(!body["title"].as_str().unwrap().contains(['\r', '\n']), "{body}");
    let (server, _) = ntfy(&hostile(), &Url::parse("https://example.com/ntfy/alerts").unwrap()).unwrap();
    assert_eq!(server.as_str(), "https://example.com/ntfy");
    assert!(ntfy(&hostile(), &Url::parse("https://ntfy.example/").unwrap()).is_none());
    assert!(ntfy(&long(), &url).unwrap().1["message"].as_str().unwrap().len() <= NTFY_BYTES);
}

#[test]
fn a_mail_s_subject_is_one_line() {
    let (subject, text) = mail(&hostile());
    assert!(!subject.contains(['\r', '\n']) && subject.contains("Bcc: all@example.com"), "{subject}");
    assert!(!text.contains('\r') && text.contains("pgtend runs show 7, on db1"), "{text}");
}

#[test]
fn no_form_has_marks_that_turn_the_direction_of_text() {
    let message = hostile();
    let url = Url::parse("https://ntfy.example/alerts").unwrap();
    let forms = [slack(&message), discord(&message), teams(&message), telegram(&message, "1"), ntfy(&message, &url).unwrap().1];
    for form in forms {
        assert!(!form.to_string().contains('\u{202e}'), "{form}");
    }
}

#[test]
fn a_webhook_gets_each_event_and_the_number_of_those_left_out() {
    let event = |number| Event { run: Some(number), outcome: Some(Outcome::Failed), job: "j".to_owned(), ..Event::default() };
    let events: Vec<Event> = (1..=250).map(event).collect();
    let body = webhook(&of_events(&events), &events);
    assert_eq!((body["events"].as_array().unwrap().len(), &body["events_left_out"]), (200, &json!(50)));
    assert_eq!((&body["severity"], &body["title"]), (&json!("bad"), &json!("250 runs failed")));
    assert_eq!(body["events"][0]["event"], "failure");
}
