//! Any bytes, as each thing a peer sends: a method, a field table, a content header. Nothing may panic, what is
//! accepted must survive being written and read again, and the two readers of one thing must agree.

#![no_main]

use bytes::BytesMut;
use leveret_fuzz::protocol::{
    assembler::{Assembler, Step, whole_publish},
    field::FieldTable,
    frame,
    method::{Method, MethodId, decode_ack, decode_nack, decode_publish, decode_reject},
    properties::{ContentHeader, Properties, RawProperties},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    method(input);
    every_method(input);
    table(input);
    content_header(input);
    assembly(input);
});

/// Written again, an accepted method reads as itself. Compared as bytes: a float that is not a number does not
/// equal itself.
fn method(payload: &[u8]) {
    let Ok(method) = Method::decode(payload) else {
        return;
    };
    let bytes = written(|out| method.encode(out));
    let again = Method::decode(&bytes).expect("our own bytes");
    assert_eq!(written(|out| again.encode(out)), bytes);
    assert_eq!(again.id(), method.id());
}

/// The input as the fields of the method its first byte chooses, so that not every run has to guess ids; and
/// the fast readers against the list.
fn every_method(input: &[u8]) {
    let Some((choice, fields)) = input.split_first() else {
        return;
    };
    let id = MethodId::ALL[usize::from(*choice) % MethodId::ALL.len()];
    let read = Method::decode_fields(id, fields);
    let fast = match id {
        MethodId::BASIC_PUBLISH => decode_publish(fields).map(drop),
        MethodId::BASIC_ACK => decode_ack(fields).map(drop),
        MethodId::BASIC_NACK => decode_nack(fields).map(drop),
        MethodId::BASIC_REJECT => decode_reject(fields).map(drop),
        _ => {
            if let Ok(read) = read {
                method(&written(|out| read.encode(out)));
            }
            return;
        }
    };
    assert_eq!(fast, read.map(drop));
}

fn table(input: &[u8]) {
    let read = FieldTable::parse(input);
    let consumed = read.as_ref().map(|(_, consumed)| *consumed);
    assert_eq!(FieldTable::validate(input), consumed.map_err(|error| *error));
    if let Ok((table, _)) = read {
        let bytes = written(|out| table.encode(out));
        assert_eq!(bytes.len(), table.encoded_len());
        let (again, all) = FieldTable::parse(&bytes).expect("our own bytes");
        assert_eq!(all, bytes.len());
        assert_eq!(written(|out| again.encode(out)), bytes);
        let canonical = table.canonical();
        let twice = canonical.canonical();
        assert_eq!(
            written(|out| twice.encode(out)),
            written(|out| canonical.encode(out))
        );
        for (_, value) in table.iter() {
            // Showing a value walks it to its depth.
            drop(value.to_string());
        }
    }
}

/// The input as what a socket brings: frames, then contents. The short cut and the long way must agree on a publish.
fn assembly(input: &[u8]) {
    const FRAME_MAX: u32 = 4096;
    const BODY_MAX: u64 = 100_000;
    let mut assembler = Assembler::default();
    let whole = whole_publish(input, FRAME_MAX);
    let (mut at, mut first) = (0, true);
    while let Ok(Some(frame)) = frame::parse(&input[at..], FRAME_MAX) {
        at += frame.wire_len();
        match assembler.frame(&frame, None, BODY_MAX) {
            Ok(Step::Content(content)) => {
                let body = content.body.concat();
                assert_eq!(body.len() as u64, content.body_len);
                assert!(content.body_len <= BODY_MAX);
                if let Some(whole) = whole.as_ref().filter(|_| first) {
                    assert_eq!((whole.wire_len, whole.body), (at, &body[..]));
                    assert_eq!(whole.properties, &content.properties[..]);
                }
                first = false;
            }
            Ok(Step::More) => {}
            Ok(Step::Method(_) | Step::Oversized(..)) | Err(_) => {
                assert!(
                    whole.is_none() || !first,
                    "the short cut takes only what the long way takes"
                );
                return;
            }
        }
    }
}

/// After validation no question may fail, and the owned reading must have the same opinion.
fn content_header(payload: &[u8]) {
    let Ok(header) = ContentHeader::decode(payload) else {
        return;
    };
    assert_eq!(written(|out| header.encode(out)), payload);
    let raw = RawProperties::new(header.properties);
    let valid = raw.validate();
    let owned = Properties::decode(header.properties);
    assert_eq!(valid, owned.as_ref().map(|_| ()).map_err(|error| *error));
    let answers = [
        raw.delivery_mode().map(|answer| answer.is_some()),
        raw.priority().map(|answer| answer.is_some()),
        raw.headers().map(|answer| answer.is_some()),
        raw.correlation_id().map(|answer| answer.is_some()),
        raw.reply_to().map(|answer| answer.is_some()),
        raw.expiration().map(|answer| answer.is_some()),
        raw.message_id().map(|answer| answer.is_some()),
        raw.timestamp().map(|answer| answer.is_some()),
        raw.user_id().map(|answer| answer.is_some()),
    ];
    if let Ok(owned) = owned {
        assert!(answers.iter().all(Result::is_ok));
        let bytes = written(|out| owned.encode(out));
        let again = Properties::decode(&bytes).expect("our own bytes");
        assert_eq!(written(|out| again.encode(out)), bytes);
    }
}

fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out);
    out
}
