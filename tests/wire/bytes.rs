//! Frames and fields written and read by hand. Nothing here uses the broker's own codec: an error in it must not
//! hide itself in the expectation.

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;
pub(crate) const END: u8 = 0xCE;

/// The header of AMQP 0-9-1.
pub(crate) const PROTOCOL: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A frame around any payload.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
    out
}

/// A method frame; the arguments are written with [`Args`] or given raw.
pub(crate) fn method(channel: u16, (class, id): (u16, u16), args: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &id.to_be_bytes(), args.as_ref()].concat();
    frame(METHOD, channel, &payload)
}

/// A content header of class 60; `properties` are the flags and what they announce.
pub(crate) fn header(channel: u16, body_size: u64, properties: &[u8]) -> Vec<u8> {
    header_of(channel, 60, 0, body_size, properties)
}

pub(crate) fn header_of(channel: u16, class: u16, weight: u16, body_size: u64, properties: &[u8]) -> Vec<u8> {
    let payload = Args::new()
        .short(class)
        .short(weight)
        .longlong(body_size)
        .raw(properties);
    frame(HEADER, channel, payload.as_ref())
}

pub(crate) fn body(channel: u16, part: &[u8]) -> Vec<u8> {
    frame(BODY, channel, part)
}

/// Property flags that announce nothing.
pub(crate) const NO_PROPERTIES: &[u8] = &[0, 0];

/// A publish in three frames, or two when the body is empty.
pub(crate) fn publish(channel: u16, exchange: &str, key: &str, content: &[u8]) -> Vec<u8> {
    publish_with(channel, exchange, key, NO_PROPERTIES, content)
}

pub(crate) fn publish_with(
    channel: u16,
    exchange: &str,
    key: &str,
    properties: &[u8],
    content: &[u8],
) -> Vec<u8> {
    let mut out = publish_method(channel, exchange, key, 0);
    out.extend(header(channel, content.len() as u64, properties));
    if !content.is_empty() {
        out.extend(body(channel, content));
    }
    out
}

/// basic.publish alone; bit 0 is mandatory, bit 1 immediate.
pub(crate) fn publish_method(channel: u16, exchange: &str, key: &str, bits: u8) -> Vec<u8> {
    method(
        channel,
        BASIC_PUBLISH,
        Args::new().short(0).str(exchange).str(key).octet(bits),
    )
}

/// The octets of fields, one after the other.
#[derive(Clone, Default)]
pub(crate) struct Args(Vec<u8>);

impl AsRef<[u8]> for Args {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Args {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn octet(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(crate) fn short(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn long(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn longlong(self, value: u64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn str(self, text: &str) -> Self {
        self.short_bytes(text.as_bytes())
    }

    pub(crate) fn short_bytes(self, bytes: &[u8]) -> Self {
        self.octet(u8::try_from(bytes.len()).unwrap()).raw(bytes)
    }

    pub(crate) fn longstr(self, bytes: &[u8]) -> Self {
        self.long(u32::try_from(bytes.len()).unwrap()).raw(bytes)
    }
}

/// A table's entry: key, tag, the value's octets.
pub(crate) fn entry(key: &str, tag: u8, value: &[u8]) -> Vec<u8> {
    Args::new().str(key).octet(tag).raw(value).0
}

/// An entry whose value is a long string.
pub(crate) fn text_entry(key: &str, value: &str) -> Vec<u8> {
    entry(key, b'S', Args::new().longstr(value.as_bytes()).as_ref())
}

pub(crate) fn bool_entry(key: &str, value: bool) -> Vec<u8> {
    entry(key, b't', &[u8::from(value)])
}

/// An entry whose value is a table or an array of raw contents.
pub(crate) fn nested_entry(key: &str, tag: u8, contents: &[u8]) -> Vec<u8> {
    entry(key, tag, Args::new().longstr(contents).as_ref())
}

/// Reads fields off the front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub(crate) fn longlong(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub(crate) fn short_bytes(&mut self) -> &'a [u8] {
        let len = self.octet();
        self.take(len.into())
    }

    pub(crate) fn str(&mut self) -> String {
        String::from_utf8(self.short_bytes().to_vec()).expect("our own texts are UTF-8")
    }

    pub(crate) fn longstr(&mut self) -> &'a [u8] {
        let len = self.long();
        self.take(len as usize)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) const CONNECTION_START: (u16, u16) = (10, 10);
pub(crate) const CONNECTION_START_OK: (u16, u16) = (10, 11);
pub(crate) const CONNECTION_TUNE: (u16, u16) = (10, 30);
pub(crate) const CONNECTION_TUNE_OK: (u16, u16) = (10, 31);
pub(crate) const CONNECTION_OPEN: (u16, u16) = (10, 40);
pub(crate) const CONNECTION_OPEN_OK: (u16, u16) = (10, 41);
pub(crate) const CONNECTION_CLOSE: (u16, u16) = (10, 50);
pub(crate) const CONNECTION_CLOSE_OK: (u16, u16) = (10, 51);
pub(crate) const CONNECTION_UPDATE_SECRET: (u16, u16) = (10, 70);
pub(crate) const CONNECTION_UPDATE_SECRET_OK: (u16, u16) = (10, 71);
pub(crate) const CHANNEL_OPEN: (u16, u16) = (20, 10);
pub(crate) const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
pub(crate) const CHANNEL_FLOW: (u16, u16) = (20, 20);
pub(crate) const CHANNEL_FLOW_OK: (u16, u16) = (20, 21);
pub(crate) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
pub(crate) const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
pub(crate) const ACCESS_REQUEST: (u16, u16) = (30, 10);
pub(crate) const ACCESS_REQUEST_OK: (u16, u16) = (30, 11);
pub(crate) const EXCHANGE_DECLARE: (u16, u16) = (40, 10);
pub(crate) const QUEUE_DECLARE: (u16, u16) = (50, 10);
pub(crate) const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
pub(crate) const QUEUE_BIND: (u16, u16) = (50, 20);
pub(crate) const QUEUE_BIND_OK: (u16, u16) = (50, 21);
pub(crate) const QUEUE_DELETE: (u16, u16) = (50, 40);
pub(crate) const BASIC_QOS: (u16, u16) = (60, 10);
pub(crate) const BASIC_CONSUME: (u16, u16) = (60, 20);
pub(crate) const BASIC_CONSUME_OK: (u16, u16) = (60, 21);
pub(crate) const BASIC_PUBLISH: (u16, u16) = (60, 40);
pub(crate) const BASIC_RETURN: (u16, u16) = (60, 50);
pub(crate) const BASIC_DELIVER: (u16, u16) = (60, 60);
pub(crate) const BASIC_GET: (u16, u16) = (60, 70);
pub(crate) const BASIC_GET_OK: (u16, u16) = (60, 71);
pub(crate) const BASIC_GET_EMPTY: (u16, u16) = (60, 72);
pub(crate) const BASIC_ACK: (u16, u16) = (60, 80);
pub(crate) const BASIC_RECOVER: (u16, u16) = (60, 110);
pub(crate) const CONFIRM_SELECT: (u16, u16) = (85, 10);
pub(crate) const CONFIRM_SELECT_OK: (u16, u16) = (85, 11);
pub(crate) const TX_SELECT: (u16, u16) = (90, 10);
