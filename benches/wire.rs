//! Bytes to protocol and back: what every message costs before anybody looks at it.
//!
//! Frames are masked with zeros. Unmasking does the same work under any mask, and this one leaves the
//! input as it was, so that one buffer serves all rounds and none is spent on preparing the next.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use throng::wire::http::{self, HeadLimits};
use throng::wire::websocket::{self, DecodeLimits, Decoder, Deflator, Inflator, Input};

const LIMITS: DecodeLimits =
    DecodeLimits { message_bytes: 1 << 20, fragments: 1024, deflated: false };

/// A request head as a browser sends it.
const HEAD: &str = "GET /ws?room=lobby HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0\r\n\
    Upgrade: websocket\r\nOrigin: https://chat.example.org\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: throng.v1.json\r\n\r\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    unmask(&mut criterion);
    decode(&mut criterion);
    encode(&mut criterion);
    deflate(&mut criterion);
    head(&mut criterion);
    criterion.final_summary();
}

/// A client's frame with a mask of zeros. `first` is the first byte: final bit and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => frame.push(0x80 | short),
        (_, Ok(length)) => {
            frame.push(0xfe);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for length in [64, 1024, 65_536] {
        let mut bytes = vec![b'x'; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("{length} bytes"), |bencher| {
            bencher.iter(|| websocket::unmask(black_box(&mut bytes), black_box([1, 2, 3, 4]), 1));
        });
    }
    group.finish();
}

/// Decodes `chunks` one after another, as if each were a read of its own; returns the items.
fn decode_all(decoder: &mut Decoder, chunks: &mut [Vec<u8>]) -> usize {
    let mut items = 0;
    for chunk in chunks {
        let mut input = Input::new(chunk);
        while let Ok(Some(item)) = decoder.decode(&mut input, &LIMITS) {
            black_box(item);
            items += 1;
        }
    }
    items
}

fn decode(criterion: &mut Criterion) {
    let one = frame(0x81, &[b'x'; 64]);
    let thousand = frame(0x81, &[b'x'; 59]).repeat(1000);
    let fragments: Vec<u8> = (0..16)
        .flat_map(|at| {
            let first = u8::from(at == 0) | if at == 15 { 0x80 } else { 0 };
            frame(first, &[b'x'; 256])
        })
        .collect();
    let large = frame(0x81, &vec![b'x'; 262_144]);
    let cut: Vec<Vec<u8>> = large.chunks(65_536).map(<[u8]>::to_vec).collect();
    let cases = [
        ("one frame of 64 bytes", vec![one], 1),
        ("1000 frames in one read of 64 KiB", vec![thousand], 1000),
        ("a message of 4 KiB in 16 fragments", vec![fragments], 1),
        ("a message of 256 KiB in reads of 64 KiB", cut, 1),
    ];
    let mut group = criterion.benchmark_group("decode");
    for (name, mut chunks, items) in cases {
        group.throughput(Throughput::Bytes(chunks.iter().map(|chunk| chunk.len() as u64).sum()));
        let mut decoder = Decoder::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(decode_all(&mut decoder, black_box(&mut chunks)), items));
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode text");
    for length in [64, 1024, 65_536] {
        let payload = vec![b'x'; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("{length} bytes"), |bencher| {
            bencher.iter(|| websocket::frame(websocket::TEXT, black_box(&payload)));
        });
    }
    group.finish();
}

/// What compression adds to a publication, once for all its receivers, and to a message that comes compressed.
fn deflate(criterion: &mut Criterion) {
    let one = r#"{"user":"u1234","at":1795700561,"x":12.5,"y":-3.25,"state":"moving"},"#;
    let mut group = criterion.benchmark_group("deflate");
    for (count, level) in [(5, 3), (60, 1), (60, 3), (60, 9), (900, 3)] {
        let message = one.repeat(count);
        let plain = websocket::frame(websocket::TEXT, message.as_bytes());
        let mut deflator = Deflator::new(level);
        let Some(frame) = deflator.frame(&plain) else { continue };
        let size = format!("{} bytes to {}, level {level}", plain.len(), frame.len());
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("compress {size}"), |bencher| {
            bencher.iter(|| deflator.frame(black_box(&plain)));
        });
        let mut inflator = Inflator::default();
        group.bench_function(format!("inflate {size}"), |bencher| {
            bencher.iter(|| {
                let payload = websocket::payload(black_box(&frame));
                assert!(inflator.inflate(payload, 1 << 20).is_ok());
            });
        });
    }
    group.finish();
}

fn head(criterion: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = criterion.benchmark_group("request head");
    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("parse a browser's", |bencher| {
        bencher.iter(|| {
            let parsed = http::parse(black_box(HEAD.as_bytes()), &limits);
            assert!(matches!(parsed, Ok(Some(_))));
        });
    });
    group.bench_function("parse and judge as an upgrade", |bencher| {
        bencher.iter(|| {
            let parsed = http::parse(black_box(HEAD.as_bytes()), &limits);
            assert!(matches!(parsed, Ok(Some(parsed)) if http::upgrade(&parsed.head).is_ok()));
        });
    });
    group.finish();
}
