//! The decoder against its naive twin, and the promises that are about memory.
//!
//! The streams are written by tungstenite as a foreign client: its frames, its masking. Some are
//! damaged afterwards, so that both sides have to agree on refusals as well.

use proptest::prelude::*;
use tungstenite::protocol::frame::Frame;

use super::twin::{Outcome, Owned, decoded, naive};
use super::*;

const ROOMY: DecodeLimits =
    DecodeLimits { message_bytes: 1 << 20, fragments: 1 << 10, deflated: false };

/// The same where messages may come compressed.
const DEFLATED: DecodeLimits = DecodeLimits { deflated: true, ..ROOMY };

/// One frame as a foreign client writes it.
fn client(opcode: OpCode, is_final: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Frame::message(payload.to_vec(), BINARY, is_final);
    frame.header_mut().opcode = opcode;
    frame.header_mut().mask = Some(mask);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("a vector takes all");
    bytes
}

const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const MASK: [u8; 4] = [0x1f, 0x80, 0xe3, 7];

fn of(control: Control, payload: &[u8]) -> Vec<u8> {
    client(OpCode::Control(control), true, payload, MASK)
}

/// A stretch of stream that is in order by itself.
fn stretch() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        ("\\PC{0,40}").prop_map(|text| (TEXT, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (BINARY, bytes)),
        (126usize..70_000).prop_map(|length| (TEXT, vec![b'x'; length])),
    ];
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 4]>()), 1..6);
    let controls = prop::collection::vec((any::<bool>(), "[a-z]{0,9}"), 0..4);
    (body, cuts, controls).prop_map(|((opcode, body), cuts, controls)| {
        let mut ends: Vec<_> = cuts[1..].iter().map(|(at, _)| at.index(body.len() + 1)).collect();
        ends.push(body.len());
        ends.sort_unstable();
        let mut controls = controls.iter();
        let (mut stream, mut begin) = (Vec::new(), 0);
        for (at, end) in ends.iter().enumerate() {
            let opcode = if at == 0 { opcode } else { CONTINUE };
            let is_final = at + 1 == ends.len();
            stream.extend(client(opcode, is_final, &body[begin..*end], cuts[at].1));
            begin = *end;
            if let Some((is_ping, payload)) = controls.next() {
                let control = if *is_ping { Control::Ping } else { Control::Pong };
                stream.extend(of(control, payload.as_bytes()));
            }
        }
        stream
    })
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let close = prop::option::of((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)));
    (prop::collection::vec(stretch(), 0..5), close).prop_map(|(stretches, close)| {
        let mut stream = stretches.concat();
        if let Some((code, reason)) = close {
            let payload = [&code.to_be_bytes()[..], &reason].concat();
            stream.extend(of(Control::Close, &payload));
            stream.extend(of(Control::Ping, b"after the end"));
        }
        stream
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![Just(1), 1usize..20, 1usize..5000];
    prop::collection::vec(cut, 1..30)
}

proptest! {
    #[test]
    fn any_cutting_of_a_valid_stream_gives_the_items_of_the_whole(s in stream(), cuts in cuts()) {
        let expected = naive(&s, &ROOMY);
        prop_assert_eq!(decoded(&s, &[], &ROOMY), expected.clone());
        prop_assert_eq!(decoded(&s, &cuts, &ROOMY), expected);
    }

    #[test]
    fn any_cutting_of_a_damaged_stream_gives_the_verdict_of_the_twin(
        s in stream(),
        cuts in cuts(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end: prop::sample::Index,
        message_bytes in 0usize..400,
        fragments in 0u32..5,
        deflated: bool,
    ) {
        let mut s = s;
        for (at, byte) in damage {
            if !s.is_empty() {
                let at = at.index(s.len());
                s[at] ^= byte;
            }
        }
        s.truncate(end.index(s.len() + 1));
        for limits in [ROOMY, DEFLATED, DecodeLimits { message_bytes, fragments, deflated }] {
            let expected = naive(&s, &limits);
            prop_assert_eq!(decoded(&s, &[], &limits), expected.clone());
            prop_assert_eq!(decoded(&s, &cuts, &limits), expected);
        }
    }

    #[test]
    fn any_headers_at_all_are_judged_as_the_twin_judges_them(
        heads in prop::collection::vec((first(), second(), tail()), 1..6),
        cuts in cuts(),
    ) {
        let s: Vec<u8> = heads
            .iter()
            .flat_map(|(first, second, tail)| [&[*first, *second][..], tail].concat())
            .collect();
        for limits in [ROOMY, DEFLATED] {
            let expected = naive(&s, &limits);
            prop_assert_eq!(decoded(&s, &[], &limits), expected.clone());
            prop_assert_eq!(decoded(&s, &cuts, &limits), expected);
        }
    }
}

/// First bytes, mostly of frames that could be.
fn first() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => prop::sample::select(vec![0, 1, 2, 0x41, 0x42, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1, 0xc2]),
        1 => any::<u8>(),
    ]
}

/// Second bytes, mostly masked and at the edges of the length's forms.
fn second() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => prop::sample::select(vec![0x80, 0x81, 0x82, 0xfd, 0xfe, 0xff]),
        1 => any::<u8>(),
    ]
}

/// What follows: often as long as the rest of a header with an empty payload, often with high zeros.
fn tail() -> impl Strategy<Value = Vec<u8>> {
    (0usize..9, prop::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(zeros, bytes)| [vec![0; zeros], bytes].concat())
}

#[test]
fn each_rule_about_headers_is_held_as_soon_as_its_byte_is_there() {
    let open = client(TEXT, false, b"", MASK);
    let cases: [(&[u8], &[u8], Violation); 14] = [
        (b"", b"\xc1", Violation::ReservedBits),
        (b"", b"\xa1", Violation::ReservedBits),
        (b"", b"\x91", Violation::ReservedBits),
        (b"", b"\x83", Violation::ReservedOpcode),
        (b"", b"\x8b", Violation::ReservedOpcode),
        (b"", b"\x09", Violation::FragmentedControl),
        (b"", b"\x80", Violation::NothingToContinue),
        (&open, b"\x81", Violation::MessageInsideMessage),
        (b"", b"\x81\x00", Violation::Unmasked),
        (b"", b"\x89\xfe", Violation::ControlTooLong),
        (b"", b"\x82\xfe\x00\x7d\0\0\0\0", Violation::LengthNotMinimal),
        (b"", b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", Violation::LengthNotMinimal),
        (b"", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", Violation::LengthTooLarge),
        (b"", b"\x82\xff\x7f\0\0\0\0\0\0\0\0\0\0\0", Violation::MessageTooBig),
    ];
    for (before, bytes, violation) in cases {
        let stream = [before, bytes].concat();
        for cuts in [&[][..], &[1]] {
            assert_eq!(decoded(&stream, cuts, &ROOMY), (vec![], Some(violation)), "{bytes:x?}");
            let (items, early) = decoded(&stream[..stream.len() - 1], cuts, &ROOMY);
            assert_eq!((items.len(), early), (0, None), "{bytes:x?}");
        }
    }
}

#[test]
fn a_decoder_between_messages_is_one_empty_pointer() {
    assert_eq!(size_of::<Decoder>(), 8);
    let mut decoder = Decoder::default();
    for cut in [1, 5, 40] {
        let mut stream = client(TEXT, true, b"a message that comes in pieces", MASK);
        for piece in stream.chunks_mut(cut) {
            let mut input = Input::new(piece);
            while decoder.decode(&mut input, &ROOMY).expect("in order").is_some() {}
        }
        assert_eq!((decoder.buffered_capacity(), decoder.is_mid_message()), (0, false));
    }
}

#[test]
fn a_message_whole_in_the_input_is_lent_from_the_input() {
    let mut stream = client(BINARY, true, &[9; 1000], MASK);
    let range = stream.as_ptr_range();
    let mut decoder = Decoder::default();
    let mut input = Input::new(&mut stream);
    let Ok(Some(Item::Binary(lent))) = decoder.decode(&mut input, &ROOMY) else {
        panic!("no message")
    };
    assert!(range.contains(&lent.as_ptr()) && lent == [9; 1000]);
    assert_eq!(decoder.buffered_capacity(), 0);
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    let first = client(TEXT, false, b"x", MASK);
    for (before, head) in [
        (&b""[..], 0xc8),
        (b"", 0xc9),
        (b"", 0xca),
        (&first[..], 0xc0),
        (b"", 0xc3),
        (b"", 0xa1),
        (b"", 0xe1),
        (b"", 0xd2),
    ] {
        let stream = [before, &[head]].concat();
        let (_, violation) = decoded(&stream, &[], &DEFLATED);
        assert_eq!(violation, Some(Violation::ReservedBits), "{head:#x}");
    }
    let mut message = client(TEXT, false, b"\xffa", MASK);
    message[0] |= 0x40;
    message.extend(client(CONTINUE, true, b"\xfeb", MASK));
    let expected = vec![Owned::Deflated(true, b"\xffa\xfeb".to_vec())];
    assert_eq!(decoded(&message, &[1], &DEFLATED), (expected, None));
    assert_eq!(decoded(&message, &[1], &ROOMY), (vec![], Some(Violation::ReservedBits)));
}

#[test]
fn a_compressed_message_is_not_held_longer_than_one_that_did_not_shrink() {
    let limits = DecodeLimits { message_bytes: 1000, fragments: 9, deflated: true };
    let deflated = |length| {
        let mut frame = client(BINARY, true, &vec![7; length], MASK);
        frame[0] |= 0x40;
        decoded(&frame, &[], &limits)
    };
    assert_eq!(deflated(1067).0.len(), 1);
    assert_eq!(deflated(1068).1, Some(Violation::MessageTooBig));
}

#[test]
fn a_declared_gibibyte_reserves_nothing() {
    let limits = DecodeLimits { message_bytes: usize::MAX, fragments: 1, deflated: false };
    let mut decoder = Decoder::default();
    let mut head = vec![0x82, 0xff];
    head.extend((1u64 << 30).to_be_bytes());
    head.extend(MASK);
    head.extend([0; 10]);
    assert_eq!(decoder.decode(&mut Input::new(&mut head), &limits), Ok(None));
    assert!(decoder.is_mid_message());
    assert!(decoder.buffered_capacity() < 400, "{}", decoder.buffered_capacity());
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header_alone() {
    let limits = DecodeLimits { message_bytes: 10, fragments: 9, deflated: false };
    let mut decoder = Decoder::default();
    let mut whole = client(BINARY, true, &[0; 11], MASK);
    let refused = decoder.decode(&mut Input::new(&mut whole[..6]), &limits);
    assert_eq!(refused, Err(Violation::MessageTooBig));
    let first = client(BINARY, false, &[0; 6], MASK);
    let second = client(CONTINUE, true, &[0; 5], MASK);
    let (items, violation) = decoded(&[first, second[..6].to_vec()].concat(), &[3], &limits);
    assert_eq!((items.len(), violation), (0, Some(Violation::MessageTooBig)));
}

#[test]
fn a_message_of_exactly_the_limits_is_taken() {
    let limits = DecodeLimits { message_bytes: 4, fragments: 2, deflated: false };
    let halves = [client(TEXT, false, b"ab", MASK), client(CONTINUE, true, b"cd", MASK)].concat();
    let expected: Outcome = (vec![Owned::Text("abcd".to_owned())], None);
    assert_eq!(decoded(&halves, &[], &limits), expected);
    let thirds =
        [client(TEXT, false, b"", MASK), client(CONTINUE, false, b"", MASK), halves[8..].to_vec()];
    assert_eq!(decoded(&thirds.concat(), &[], &limits).1, Some(Violation::TooManyFragments));
}

#[test]
fn text_fails_at_its_first_bad_byte_inside_a_frame() {
    let mut stream = client(TEXT, true, b"fine \xc0 and much more to come", MASK);
    let bad = 6 + 5;
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(&mut Input::new(&mut stream[..bad]), &ROOMY), Ok(None));
    let verdict = decoder.decode(&mut Input::new(&mut stream[bad..=bad]), &ROOMY);
    assert_eq!(verdict, Err(Violation::TextNotUtf8));
}

#[test]
fn a_code_point_may_be_cut_by_fragments_and_by_a_ping() {
    let stream = [
        client(TEXT, false, b"\xf0\x9f", MASK),
        of(Control::Ping, b"?"),
        client(CONTINUE, true, b"\x98\x80", MASK),
    ];
    let expected = (vec![Owned::Ping(b"?".to_vec()), Owned::Text("\u{1f600}".to_owned())], None);
    assert_eq!(decoded(&stream.concat(), &[], &ROOMY), expected);
    assert_eq!(decoded(&stream.concat(), &[1], &ROOMY), expected);
}

#[test]
fn a_text_may_not_end_inside_a_code_point() {
    let whole = client(TEXT, true, b"\xf0\x9f\x98", MASK);
    let halves =
        [client(TEXT, false, b"\xf0\x9f", MASK), client(CONTINUE, true, b"\x98", MASK)].concat();
    for stream in [whole, halves] {
        for cuts in [&[][..], &[1]] {
            let refused = (vec![], Some(Violation::TextNotUtf8));
            assert_eq!(decoded(&stream, cuts, &ROOMY), refused);
        }
    }
}

#[test]
fn memory_grows_by_doubling_but_not_beyond_the_end_of_the_message() {
    for opcode in [TEXT, BINARY] {
        let mut stream = client(opcode, true, &[b'x'; 100], MASK);
        let mut decoder = Decoder::default();
        let mut held = [0; 3];
        let pieces = [0..6 + 10, 16..6 + 70, 76..6 + 80];
        for (held, piece) in held.iter_mut().zip(pieces) {
            let mut input = Input::new(&mut stream[piece]);
            assert_eq!(decoder.decode(&mut input, &ROOMY), Ok(None));
            *held = decoder.buffered_capacity();
        }
        assert_eq!((held[1] - held[0], held[2] - held[1]), (100 - 64, 0));
    }
}

#[test]
fn nothing_is_taken_after_a_close_or_a_violation() {
    let closes = [&b""[..], b"\x03", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed"];
    let closes = closes.map(|payload| of(Control::Close, payload));
    for end in closes.into_iter().chain([vec![0xf0]]) {
        let stream = [client(TEXT, false, b"half", MASK), end, of(Control::Ping, b"")].concat();
        for cuts in [&[][..], &[1], &[2]] {
            let (items, violation) = decoded(&stream, cuts, &ROOMY);
            assert!(!items.contains(&Owned::Ping(Vec::new())));
            assert_eq!(items.len() + usize::from(violation.is_some()), 1);
        }
    }
}

#[test]
fn a_partial_header_counts_as_mid_message_and_an_ended_decoder_does_not() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(&mut Input::new(&mut [0x81]), &ROOMY), Ok(None));
    assert!(decoder.is_mid_message());
    let mut unmasked = [0x01];
    let refused = decoder.decode(&mut Input::new(&mut unmasked), &ROOMY);
    assert_eq!(refused, Err(Violation::Unmasked));
    assert!(decoder.is_ended() && !decoder.is_mid_message());
}

#[test]
fn many_small_fragments_are_not_moved_one_by_one() {
    let count = 10_000;
    let limits = DecodeLimits { message_bytes: count, fragments: u32::MAX, deflated: false };
    let mut decoder = Decoder::default();
    let mut capacities = Vec::new();
    for at in 1..count {
        let opcode = if at == 1 { BINARY } else { CONTINUE };
        let mut fragment = client(opcode, false, b"x", MASK);
        assert_eq!(decoder.decode(&mut Input::new(&mut fragment), &limits), Ok(None));
        capacities.push(decoder.buffered_capacity());
    }
    capacities.dedup();
    assert!(capacities.len() < 12, "the message moved {} times", capacities.len());
    decoder.check();
}

#[test]
fn every_violation_maps_to_a_code_of_the_rfc_and_a_reason_that_fits() {
    for violation in Violation::ALL {
        assert!(matches!(violation.code().get(), 1002 | 1007 | 1009));
        assert!((1..=CLOSE_REASON_BYTES).contains(&violation.reason().len()));
    }
}

#[test]
fn what_is_encoded_reads_as_tungstenite_reads_it() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload = vec![b'y'; length];
        for (opcode, bytes) in [(TEXT, text(&payload)), (BINARY, binary(&payload))] {
            let mut cursor = std::io::Cursor::new(&bytes);
            let parsed = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor);
            let (parsed, declared) = parsed.expect("valid").expect("complete");
            assert_eq!((parsed.opcode, parsed.is_final, parsed.mask), (opcode, true, None));
            assert_eq!(declared, length as u64);
            let at = usize::try_from(cursor.position()).expect("small");
            assert_eq!(bytes[at..], payload);
            for expected in [0, length, 100_000] {
                let built = frame_with(opcode, expected, |frame| frame.extend(&payload));
                assert!(built == bytes, "{length} bytes, {expected} expected");
            }
        }
    }
}

#[test]
fn control_frames_are_encoded_as_the_rfc_shows_them() {
    assert_eq!(ping(b""), PING);
    assert_eq!(frame(OpCode::Control(Control::Close), b""), CLOSE);
    assert_eq!(ping(b"Hello"), b"\x89\x05Hello");
    assert_eq!(pong(b"Hello"), b"\x8a\x05Hello");
    assert_eq!(close(CloseCode::AWAY, "bye"), b"\x88\x05\x03\xe9bye");
    let long = close(CloseCode::POLICY, &"\u{e9}".repeat(100));
    assert_eq!((long.len(), std::str::from_utf8(&long[4..]).map(str::len)), (126, Ok(122)));
}

#[test]
#[should_panic(expected = "a control frame of 126 bytes")]
fn a_control_frame_that_no_peer_would_accept_is_our_fault() {
    let _ = ping(&[0; 126]);
}
