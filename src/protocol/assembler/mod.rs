//! Method, content header and bodies to one command, per channel (amqp-behaviour 1.9). And the short cut for the
//! message that arrived whole in one read, which is nearly every small one.

use bytes::{Bytes, BytesMut};

use crate::protocol::{
    frame::{self, Frame},
    method::{Method, MethodError, PublishFields, decode_publish},
    properties::ContentHeader,
};

/// AMQP's class 60 is the only one with content.
const BASIC: u16 = 60;
/// No message is larger, whatever the configuration says (amqp-behaviour 1.10).
pub const BODY_SIZE_MAX: u64 = 536_870_912;
/// Body frames from this size on are shared with the read buffer; smaller ones are gathered, so that neither a
/// small piece pins a large buffer nor many tiny frames cost an allocation each.
pub const SHARED_FRAME_MIN: usize = 16 * 1024;
const GATHER_MAX: usize = 64 * 1024;

/// A method with its content, complete.
pub struct Content {
    pub method: Method,
    /// Property flags and values as they came.
    pub properties: Bytes,
    pub body: Vec<Bytes>,
    pub body_len: u64,
}

/// What one frame completed.
pub enum Step {
    /// The content needs more frames.
    More,
    Method(Method),
    Content(Box<Content>),
    /// The header announces a body of so many octets, more than the caller takes. Nothing of the content is kept; the
    /// channel must take no more frames.
    Oversized(Method, u64),
}

/// A frame that cannot come here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    #[error("expected method frame, got non method frame instead")]
    ExpectedMethod,
    #[error("expected content header for class 60, got one for class {0} instead")]
    WrongClass(u16),
    #[error("expected content header for class 60, got non content header frame instead")]
    ExpectedHeader,
    #[error("expected content body, got non content body frame instead")]
    ExpectedBody,
    #[error("content body size {0} exceeds maximum allowed size 536870912")]
    TooLarge(u64),
    #[error("content body frame exceeds remaining content size")]
    BodyOverflow,
    #[error(transparent)]
    Method(#[from] MethodError),
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Header(Method),
    Body(Box<Partial>),
}

struct Partial {
    content: Content,
    remaining: u64,
    gathered: BytesMut,
}

/// One channel's place in a content.
#[derive(Default)]
pub struct Assembler {
    state: State,
}

impl Assembler {
    /// True between contents: the next frame must be a method.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// The method whose content is being assembled.
    pub fn pending(&self) -> Option<&Method> {
        match &self.state {
            State::Idle => None,
            State::Header(method) => Some(method),
            State::Body(partial) => Some(&partial.content.method),
        }
    }

    /// The next frame must be one of a body.
    pub fn takes_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Octets of the body that is being assembled.
    pub fn received(&self) -> u64 {
        match &self.state {
            State::Body(partial) => partial.content.body_len - partial.remaining,
            State::Idle | State::Header(_) => 0,
        }
    }

    /// Takes the channel's next frame. `shared` is the frame's payload when the caller could share it with its buffer;
    /// `body_max` are the octets a body may have.
    ///
    /// # Errors
    /// [`AssemblyError`]; the connection must be closed.
    pub fn frame(
        &mut self,
        frame: &Frame<'_>,
        shared: Option<Bytes>,
        body_max: u64,
    ) -> Result<Step, AssemblyError> {
        match std::mem::take(&mut self.state) {
            State::Idle if frame.kind == frame::METHOD => {
                let method = Method::decode(frame.payload)?;
                if !method.has_content() {
                    return Ok(Step::Method(method));
                }
                self.state = State::Header(method);
                Ok(Step::More)
            }
            State::Idle => Err(AssemblyError::ExpectedMethod),
            State::Header(method) => self.header(method, frame, body_max),
            State::Body(partial) => self.body(partial, frame, shared),
        }
    }

    fn header(&mut self, method: Method, frame: &Frame<'_>, body_max: u64) -> Result<Step, AssemblyError> {
        if frame.kind != frame::HEADER {
            return Err(AssemblyError::ExpectedHeader);
        }
        let header = ContentHeader::decode(frame.payload).map_err(|_short| AssemblyError::ExpectedHeader)?;
        if header.class != BASIC {
            return Err(AssemblyError::WrongClass(header.class));
        }
        if header.weight != 0 {
            return Err(AssemblyError::ExpectedHeader);
        }
        if header.body_size > BODY_SIZE_MAX {
            return Err(AssemblyError::TooLarge(header.body_size));
        }
        if header.body_size > body_max {
            return Ok(Step::Oversized(method, header.body_size));
        }
        let content = Content {
            method,
            properties: Bytes::copy_from_slice(header.properties),
            body: Vec::new(),
            body_len: header.body_size,
        };
        if header.body_size == 0 {
            return Ok(Step::Content(Box::new(content)));
        }
        let remaining = header.body_size;
        self.state = State::Body(Box::new(Partial {
            content,
            remaining,
            gathered: BytesMut::new(),
        }));
        Ok(Step::More)
    }

    fn body(
        &mut self,
        mut partial: Box<Partial>,
        frame: &Frame<'_>,
        shared: Option<Bytes>,
    ) -> Result<Step, AssemblyError> {
        if frame.kind != frame::BODY {
            return Err(AssemblyError::ExpectedBody);
        }
        let len = frame.payload.len() as u64;
        if len > partial.remaining {
            return Err(AssemblyError::BodyOverflow);
        }
        partial.remaining -= len;
        match shared {
            Some(payload) => {
                partial.settle_gathered();
                partial.content.body.push(payload);
            }
            None => {
                partial.gathered.extend_from_slice(frame.payload);
                if partial.gathered.len() >= GATHER_MAX {
                    partial.settle_gathered();
                }
            }
        }
        if partial.remaining > 0 {
            self.state = State::Body(partial);
            return Ok(Step::More);
        }
        partial.settle_gathered();
        Ok(Step::Content(Box::new(partial.content)))
    }
}

impl Partial {
    fn settle_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.content.body.push(self.gathered.split().freeze());
        }
    }
}

/// A publish whose frames all stand in one piece of input, borrowed.
pub struct WholePublish<'a> {
    pub channel: u16,
    pub fields: PublishFields<'a>,
    pub properties: &'a [u8],
    pub body: &'a [u8],
    /// Octets of its two or three frames.
    pub wire_len: usize,
}

/// Looks for a whole, faultless small publish at the front of the input. `None` means "take the long way", not "bad":
/// everything unusual is left to [`Assembler`], which knows what to say of it.
#[inline]
pub fn whole_publish(input: &[u8], frame_max: u32) -> Option<WholePublish<'_>> {
    const PUBLISH: &[u8] = &[0, 60, 0, 40];
    if input.first() != Some(&frame::METHOD) || input.get(frame::HEAD..frame::HEAD + 4) != Some(PUBLISH) {
        return None;
    }
    let method = frame::whole(input, frame_max)?;
    let fields = decode_publish(method.payload.get(4..)?).ok()?;
    let mut at = method.wire_len();
    let header_frame = frame::whole(input.get(at..)?, frame_max)?;
    if header_frame.kind != frame::HEADER || header_frame.channel != method.channel {
        return None;
    }
    let header = ContentHeader::decode(header_frame.payload).ok()?;
    if header.class != BASIC || header.weight != 0 {
        return None;
    }
    at += header_frame.wire_len();
    let mut body: &[u8] = &[];
    if header.body_size > 0 {
        let frame = frame::whole(input.get(at..)?, frame_max)?;
        let whole = frame.kind == frame::BODY
            && frame.channel == method.channel
            && frame.payload.len() as u64 == header.body_size
            && frame.payload.len() < SHARED_FRAME_MIN;
        if !whole {
            return None;
        }
        body = frame.payload;
        at += frame.wire_len();
    }
    Some(WholePublish {
        channel: method.channel,
        fields,
        properties: header.properties,
        body,
        wire_len: at,
    })
}

#[cfg(test)]
mod tests;
