//! Any text is read or refused without a panic, what was read keeps its limits, and what the server
//! says about it is JSON again.
//!
//! The answers are put back into the parser: it refuses them, as no client may say such things, but
//! with a code that it gives only to what is JSON. So the target needs no other parser to judge by.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use throng::base::glob::Glob;
use throng::session::encode::{self, Push, Whom};
use throng::session::schema::{Schema, Schemas};
use throng::session::{Code, Command, CommandLimits, Publish, parse};

fuzz_target!(|text: &str| {
    let limits = CommandLimits { allow_panic: true, ..CommandLimits::default() };
    let mut out = Vec::new();
    match parse(text, &limits) {
        Ok(request) => {
            if let Some(reference) = request.reference {
                assert!(reference.get().len() <= limits.max_id_bytes);
            }
            match &request.command {
                Command::Join { room, .. }
                | Command::Leave { room }
                | Command::Members { room }
                | Command::History { room, .. } => check_room(room, &limits),
                Command::Restore { rooms } => {
                    assert!((1..=limits.max_restore).contains(&rooms.len()));
                }
                Command::Publish(publish) => {
                    check_publish(publish, &limits);
                    encode::publication(&mut out, &push_of(publish));
                    expect_refusal(&out, Code::UnknownField);
                    check_payload(publish);
                }
                Command::Auth { .. }
                | Command::Ping
                | Command::Status(_)
                | Command::Inbox(_)
                | Command::Read(_)
                | Command::Watch(_)
                | Command::Unwatch(_)
                | Command::Whois(_)
                | Command::Panic => {}
            }
        }
        Err(error) => {
            assert!(error.message.len() < 1024, "{error}");
            encode::error(&mut out, &error);
            expect_refusal(&out, Code::UnknownCommand);
        }
    }
});

fn check_room(room: &str, limits: &CommandLimits) {
    assert!(!room.is_empty() && room.len() <= limits.max_room_bytes);
    assert!(!room.contains(char::is_control) && !room.starts_with("throng:"));
}

fn check_publish(publish: &Publish<'_>, limits: &CommandLimits) {
    let targets = &publish.targets;
    let named = targets.rooms.len() + targets.users().len() + targets.connections().len();
    assert!(named > 0 || targets.everyone, "a publication to nobody");
    assert!(targets.rooms.len() <= limits.max_rooms);
    assert!(targets.users().len().max(targets.connections().len()) <= limits.audience.targets);
    for (at, room) in targets.rooms.iter().enumerate() {
        check_room(room, limits);
        assert!(!targets.rooms[..at].contains(room), "a room named twice");
    }
    assert!(publish.except.as_ref().is_none_or(|except| except.len() <= limits.audience.except));
    assert!(publish.key.as_ref().is_none_or(|key| key.len() <= limits.max_id_bytes));
    assert!(publish.id.is_none_or(|id| id.get().len() <= limits.max_id_bytes));
}

/// Schemas that refer to themselves, count, compare and match, for payloads of all types.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let texts = [
        r##"{"type":["object","array","null"],"additionalProperties":{"$ref":"#"},"maxProperties":4}"##,
        r#"{"anyOf":[{"type":"string","pattern":"^(a+)+$"},{"uniqueItems":true,"contains":{"type":"number"}}]}"#,
        r#"{"oneOf":[{"multipleOf":0.01},{"minLength":3,"format":"date-time"},{"required":["a"]}]}"#,
        r#"{"unevaluatedProperties":false,"patternProperties":{"^x":true},"dependentRequired":{"x":["y"]}}"#,
    ];
    let compile = |text: &&str| Schema::new(Glob::new("*"), Glob::new("*"), 4096, text);
    Schemas::new(texts.iter().map(compile).collect::<Result<_, _>>().expect("schemas"))
});

fn check_payload(publish: &Publish<'_>) {
    let Err(error) = SCHEMAS.check(publish, publish.id) else { return };
    assert_eq!(error.code, Code::InvalidPayload);
    assert!(error.message.len() < 1024 && error.path.as_ref().is_some_and(|path| path.len() < 512));
    let mut out = Vec::new();
    encode::error(&mut out, &error);
    expect_refusal(&out, Code::UnknownCommand);
}

fn push_of<'a>(publish: &'a Publish<'_>) -> Push<'a> {
    Push {
        kind: publish.kind,
        whom: publish.targets.rooms.first().map_or(Whom::Everyone, |room| Whom::Room(room)),
        offset: u64::MAX,
        payload: publish.payload,
        id: publish.id,
        from: None,
    }
}

fn expect_refusal(answer: &[u8], code: Code) {
    let answer = std::str::from_utf8(answer).expect("the server writes UTF-8");
    // The push may have a key more than the message it came from.
    let limits = CommandLimits { max_keys: usize::MAX, ..CommandLimits::default() };
    let error = parse(answer, &limits).expect_err("a message of the server's");
    assert_eq!(error.code, code, "{answer}: {error}");
}
