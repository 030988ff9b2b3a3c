use proptest::prelude::*;

use super::*;

/// A frame's kind and payload.
type Part<'a> = (u8, &'a [u8]);

const PUBLISH: &[u8] = b"\x00\x3c\x00\x28\x00\x00\x02ex\x03key\x00";
const ACK: &[u8] = b"\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01\x00";

fn header(class: u16, weight: u16, body_size: u64) -> Vec<u8> {
    let mut payload = [class.to_be_bytes(), weight.to_be_bytes()].concat();
    payload.extend(body_size.to_be_bytes());
    payload.extend([0, 0]);
    payload
}

fn feed(assembler: &mut Assembler, kind: u8, payload: &[u8]) -> Result<Step, AssemblyError> {
    let frame = Frame {
        kind,
        channel: 1,
        payload,
    };
    assembler.frame(&frame, None, 1000)
}

/// What a script of frames comes to: `m` a method, `c` a content with its body, `+` more wanted, `!` an error and the
/// end.
fn run(frames: &[Part<'_>]) -> String {
    let mut assembler = Assembler::default();
    let mut said = String::new();
    for (kind, payload) in frames {
        match feed(&mut assembler, *kind, payload) {
            Ok(Step::More) => said.push('+'),
            Ok(Step::Method(_)) => said.push('m'),
            Ok(Step::Content(content)) => {
                let body = content.body.concat();
                assert_eq!(body.len() as u64, content.body_len);
                said.push_str(&format!("c{}", String::from_utf8_lossy(&body)));
            }
            Ok(Step::Oversized(_, size)) => said.push_str(&format!("oversized {size}")),
            Err(error) => return format!("{said}!{error}"),
        }
    }
    said
}

#[test]
fn contents_are_complete_with_their_last_octet() {
    let (two, none) = (header(60, 0, 2), header(60, 0, 0));
    let publish = (frame::METHOD, PUBLISH);
    assert_eq!(run(&[publish, (frame::HEADER, &none), publish]), "+c+");
    assert_eq!(
        run(&[publish, (frame::HEADER, &two), (frame::BODY, b"ab")]),
        "++cab"
    );
    let drop_by_drop: &[Part<'_>] = &[
        publish,
        (frame::HEADER, &two),
        (frame::BODY, b""),
        (frame::BODY, b"a"),
        (frame::BODY, b""),
        (frame::BODY, b"b"),
        (frame::METHOD, ACK),
    ];
    assert_eq!(run(drop_by_drop), "++++".to_owned() + "+cabm");
}

#[test]
fn what_comes_out_of_order_is_refused_with_rabbitmqs_texts() {
    let (two, none) = (header(60, 0, 2), header(60, 0, 0));
    let (publish, two): (Part<'_>, Part<'_>) = ((frame::METHOD, PUBLISH), (frame::HEADER, &two));
    let expected_method = "expected method frame, got non method frame instead";
    let expected_header = "expected content header for class 60, got non content header frame instead";
    let expected_body = "expected content body, got non content body frame instead";
    assert_eq!(run(&[two]), format!("!{expected_method}"));
    assert_eq!(run(&[(frame::BODY, b"a")]), format!("!{expected_method}"));
    assert_eq!(run(&[publish, publish]), format!("+!{expected_header}"));
    assert_eq!(
        run(&[publish, (frame::BODY, b"a")]),
        format!("+!{expected_header}")
    );
    assert_eq!(run(&[publish, two, publish]), format!("++!{expected_body}"));
    assert_eq!(run(&[publish, two, two]), format!("++!{expected_body}"));
    let after_empty = [publish, (frame::HEADER, &none[..]), (frame::BODY, &b""[..])];
    assert_eq!(run(&after_empty), format!("+c!{expected_method}"));
    assert_eq!(
        run(&[publish, two, (frame::BODY, b"abc")]),
        "++!content body frame exceeds remaining content size"
    );
    assert_eq!(
        run(&[publish, (frame::HEADER, &header(60, 1, 2))]),
        format!("+!{expected_header}")
    );
    assert_eq!(
        run(&[publish, (frame::HEADER, &header(50, 0, 2))]),
        "+!expected content header for class 60, got one for class 50 instead"
    );
    for size in [BODY_SIZE_MAX + 1, 1 << 63, u64::MAX] {
        assert_eq!(
            run(&[publish, (frame::HEADER, &header(60, 0, size))]),
            format!("+!content body size {size} exceeds maximum allowed size 536870912")
        );
    }
}

#[test]
fn a_body_beyond_the_callers_limit_is_refused_from_its_header() {
    let publish = (frame::METHOD, PUBLISH);
    assert_eq!(run(&[publish, (frame::HEADER, &header(60, 0, 1000))]), "++");
    assert_eq!(
        run(&[publish, (frame::HEADER, &header(60, 0, 1001))]),
        "+oversized 1001"
    );
}

#[test]
fn shared_payloads_are_kept_as_they_are_between_gathered_ones() {
    let mut assembler = Assembler::default();
    feed(&mut assembler, frame::METHOD, PUBLISH).unwrap();
    feed(&mut assembler, frame::HEADER, &header(60, 0, 6)).unwrap();
    let shared = Bytes::from_static(b"cd");
    for (payload, share) in [(&b"ab"[..], None), (b"cd", Some(shared.clone()))] {
        let frame = Frame {
            kind: frame::BODY,
            channel: 1,
            payload,
        };
        assert!(matches!(assembler.frame(&frame, share, 1000), Ok(Step::More)));
    }
    let Ok(Step::Content(content)) = feed(&mut assembler, frame::BODY, b"ef") else {
        panic!("the body is complete")
    };
    assert_eq!(content.body, [&b"ab"[..], b"cd", b"ef"]);
    assert_eq!(content.body[1].as_ptr(), shared.as_ptr(), "nothing was copied");
}

/// The octets of a publish's frames, its body cut at these places.
fn publish_frames(body: &[u8], cuts: &[usize]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::write(&mut out, frame::METHOD, 1, |out| out.extend_from_slice(PUBLISH));
    frame::write(&mut out, frame::HEADER, 1, |out| {
        out.extend(header(60, 0, body.len() as u64))
    });
    let mut at = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        frame::write(&mut out, frame::BODY, 1, |out| {
            out.extend_from_slice(&body[at..cut])
        });
        at = cut;
    }
    out
}

#[test]
fn the_short_cut_takes_a_publish_only_when_it_is_whole() {
    let bytes = publish_frames(b"hello", &[]);
    for cut in 0..bytes.len() {
        assert!(whole_publish(&bytes[..cut], 4096).is_none(), "cut at {cut}");
    }
    let whole = whole_publish(&bytes, 4096).unwrap();
    assert_eq!(
        (whole.body, whole.wire_len, whole.channel),
        (&b"hello"[..], bytes.len(), 1)
    );
    assert!(
        whole_publish(&publish_frames(b"hello", &[2]), 4096).is_none(),
        "two bodies"
    );
    assert!(
        whole_publish(&publish_frames(b"hello", &[0]), 4096).is_none(),
        "an empty frame first"
    );
    assert!(whole_publish(&bytes, 12).is_none(), "a frame over the limit");
}

proptest! {
    /// However the body is cut, the assembler gives it back, and the short cut agrees where it applies.
    #[test]
    fn any_cutting_of_a_body_gives_the_same_content(
        body in prop::collection::vec(any::<u8>(), 1..200),
        mut cuts in prop::collection::vec(0_usize..200, 0..6),
    ) {
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(body.len()));
        cuts.sort_unstable();
        let bytes = publish_frames(&body, &cuts);
        let (mut at, mut assembler, mut done) = (0, Assembler::default(), None);
        while let Some(frame) = frame::parse(&bytes[at..], 4096).unwrap() {
            at += frame.wire_len();
            if let Some(content) = done.take() {
                // Empty frames behind the last octet are one too many.
                prop_assert!(frame.payload.is_empty());
                prop_assert!(assembler.frame(&frame, None, 1000).is_err());
                done = Some(content);
                break;
            }
            if let Step::Content(content) = assembler.frame(&frame, None, 1000).unwrap() {
                done = Some(content);
            }
        }
        let content = done.unwrap();
        prop_assert_eq!(content.body.concat(), &body[..]);
        if let Some(whole) = whole_publish(&bytes, 4096) {
            prop_assert_eq!(whole.body, &body[..]);
            prop_assert_eq!(whole.properties, &content.properties[..]);
        }
    }

    /// Whatever comes, in whatever order: an answer, no panic, and what the short cut takes the long way takes too.
    #[test]
    fn any_frames_get_an_answer(frames in prop::collection::vec((1_u8..=3, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let mut assembler = Assembler::default();
        for (kind, payload) in &frames {
            if feed(&mut assembler, *kind, payload).is_err() {
                break;
            }
        }
    }
}
