//! Direct reply-to (amqp-behaviour 4.13): a consumer of replies that has no queue. A request's reply address is
//! rewritten to name the requester's channel; a publish to that name goes straight into its outbox.

use std::sync::Arc;

use ahash::AHashMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use parking_lot::RwLock;
use rand::RngCore;

use crate::broker::message::Message;
use crate::protocol::method::encode_deliver;
use crate::server::consumer_port::ChannelOut;

/// What a requester consumes from and writes into `reply_to`.
pub(super) const PSEUDO_QUEUE: &str = "amq.rabbitmq.reply-to";
/// What its address begins with.
const PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";
/// Characters of an address behind the prefix: 16 random bytes, so that nobody guesses them.
const TOKEN_LEN: usize = 22;

/// Whether a queue of this name is none, but an address of replies or something that looks like one.
pub(super) fn is_pseudo_queue(name: &str) -> bool {
    name == PSEUDO_QUEUE || name.as_bytes().starts_with(PREFIX)
}

/// Whether a publish to the default exchange with this key is a reply. It counts as routed also when the requester is
/// gone.
pub(super) fn is_address(routing_key: &[u8]) -> bool {
    routing_key.strip_prefix(PREFIX).is_some_and(|token| {
        token.len() == TOKEN_LEN
            && token
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

/// A channel's consumer of replies.
pub(super) struct ReplyConsumer {
    channel: Arc<ChannelOut>,
    pub(super) tag: Bytes,
    /// Stable for the consumer's life.
    pub(super) address: Box<[u8]>,
}

impl ReplyConsumer {
    fn deliver(&self, message: &Message) {
        // A requester that does not read loses replies; nobody waits for it.
        if self.channel.outbox.room() == 0 {
            return;
        }
        let mut ledger = self.channel.unacked.lock();
        self.channel.outbox.append(|frames| {
            let delivery_tag = ledger.skip();
            self.channel.write_content(frames, message, |out| {
                encode_deliver(out, &self.tag, delivery_tag, false, b"", message.routing_key());
            });
        });
    }
}

/// A vhost's reply consumers by address: at most one per open channel.
#[derive(Default)]
pub(super) struct Replies {
    by_address: RwLock<AHashMap<Box<[u8]>, Arc<ReplyConsumer>>>,
}

impl Replies {
    /// Enters a channel's consumer under a new address.
    pub(super) fn add(&self, channel: Arc<ChannelOut>, tag: Bytes) -> Arc<ReplyConsumer> {
        let mut random = [0; 16];
        rand::rng().fill_bytes(&mut random);
        let mut address = PREFIX.to_vec();
        address.extend_from_slice(URL_SAFE_NO_PAD.encode(random).as_bytes());
        let address: Box<[u8]> = address.into();
        let consumer = Arc::new(ReplyConsumer {
            channel,
            tag,
            address: address.clone(),
        });
        self.by_address.write().insert(address, Arc::clone(&consumer));
        consumer
    }

    pub(super) fn remove(&self, consumer: &ReplyConsumer) {
        self.by_address.write().remove(&consumer.address);
    }

    /// Whether a declaration of this name finds a consumer: how responders ask if a requester still waits.
    pub(super) fn exists(&self, name: &str) -> bool {
        name == PSEUDO_QUEUE || self.by_address.read().contains_key(name.as_bytes())
    }

    /// Hands a message that was published to the default exchange to the requesters among its keys, to each once.
    pub(super) fn deliver(&self, message: &Message) {
        let keys = message.routing_keys();
        let mut addresses: Vec<&[u8]> = keys.iter().copied().filter(|key| is_address(key)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            let consumer = self.by_address.read().get(address).cloned();
            if let Some(consumer) = consumer {
                consumer.deliver(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_our_own_addresses_counts_as_routed() {
        assert!(is_address(b"amq.rabbitmq.reply-to.AAAAAAAAAAAAAAAAAAAA-_"));
        for forged in [
            &b"amq.rabbitmq.reply-to"[..],
            b"amq.rabbitmq.reply-to.",
            b"amq.rabbitmq.reply-to.AAAAAAAAAAAAAAAAAAAAA",
            b"amq.rabbitmq.reply-to.AAAAAAAAAAAAAAAAAAAAA.",
            b"q",
        ] {
            assert!(!is_address(forged));
        }
        assert!(is_pseudo_queue("amq.rabbitmq.reply-to") && is_pseudo_queue("amq.rabbitmq.reply-to.x"));
        assert!(!is_pseudo_queue("amq.rabbitmq.reply-tox"));
    }
}
