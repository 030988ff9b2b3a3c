//! Topic: a trie over the words of the binding keys, so that the cost of a route follows the words of the
//! routing key and not the number of bindings. An empty key is zero words; empty words elsewhere are words
//! (amqp-behaviour 3.3).

use ahash::AHashMap;
use smallvec::SmallVec;

use super::{Counted, Hop, Hops, QueueRef};
use crate::broker::error::BrokerError;

/// More `#` words than this in one binding key let a crafted key cost exponential time; RabbitMQ 4.3.5 refuses too.
const HASHES_MAX: usize = 2;

pub(super) struct Topic<Q> {
    root: Node<Q>,
}

struct Node<Q> {
    /// Bindings that end here.
    ends: Counted<Q>,
    words: AHashMap<Box<[u8]>, Self>,
    /// `*`: exactly one word.
    star: Option<Box<Self>>,
    /// `#`: any number of words.
    hash: Option<Box<Self>>,
}

impl<Q> Default for Node<Q> {
    fn default() -> Self {
        Self {
            ends: Counted::default(),
            words: AHashMap::new(),
            star: None,
            hash: None,
        }
    }
}

impl<Q> Default for Topic<Q> {
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

/// Refuses binding keys with more than two `#` words.
pub(super) fn check(routing_key: &str) -> Result<(), BrokerError> {
    let hashes = routing_key.split('.').filter(|word| *word == "#").count();
    if hashes > HASHES_MAX {
        return Err(BrokerError::InvalidBinding(format!(
            "Topic binding key '{routing_key}' uses {hashes} '#' wildcards, at most {HASHES_MAX} are allowed"
        )));
    }
    Ok(())
}

fn words(key: &[u8]) -> SmallVec<[&[u8]; 8]> {
    if key.is_empty() {
        SmallVec::new()
    } else {
        key.split(|byte| *byte == b'.').collect()
    }
}

impl<Q: QueueRef> Topic<Q> {
    pub(super) fn insert(&mut self, key: &[u8], hop: Hop<Q>) {
        let mut node = &mut self.root;
        for word in words(key) {
            node = match word {
                b"*" => node.star.get_or_insert_default(),
                b"#" => node.hash.get_or_insert_default(),
                literal => node.words.entry(literal.into()).or_default(),
            };
        }
        node.ends.insert(hop);
    }

    pub(super) fn remove(&mut self, key: &[u8], hop: &Hop<Q>) {
        self.root.remove(&words(key), hop);
    }

    pub(super) fn matches(&self, routing_key: &[u8], hops: &mut Hops<Q>) {
        self.root.matches(&words(routing_key), hops);
    }
}

impl<Q: QueueRef> Node<Q> {
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.words.is_empty() && self.star.is_none() && self.hash.is_none()
    }

    /// Recursion is as deep as the key has words, at most 128.
    fn remove(&mut self, words: &[&[u8]], hop: &Hop<Q>) {
        let Some((word, rest)) = words.split_first() else {
            self.ends.remove(hop);
            return;
        };
        match *word {
            b"*" => remove_below(&mut self.star, rest, hop),
            b"#" => remove_below(&mut self.hash, rest, hop),
            literal => {
                if let Some(child) = self.words.get_mut(literal) {
                    child.remove(rest, hop);
                    if child.is_empty() {
                        self.words.remove(literal);
                    }
                }
            }
        }
    }

    /// Recursion is as deep as the key has words; a `#` tries every rest of the key, and no path holds more than two.
    fn matches(&self, words: &[&[u8]], hops: &mut Hops<Q>) {
        if let Some(hash) = &self.hash {
            // Behind a `#` that ends its binding every rest matches alike: one visit is enough.
            if hash.words.is_empty() && hash.star.is_none() && hash.hash.is_none() {
                hash.ends.append_to(hops);
            } else {
                for skipped in 0..=words.len() {
                    hash.matches(words.get(skipped..).unwrap_or(&[]), hops);
                }
            }
        }
        let Some((word, rest)) = words.split_first() else {
            self.ends.append_to(hops);
            return;
        };
        if let Some(child) = self.words.get(*word) {
            child.matches(rest, hops);
        }
        if let Some(star) = &self.star {
            star.matches(rest, hops);
        }
    }
}

fn remove_below<Q: QueueRef>(child: &mut Option<Box<Node<Q>>>, rest: &[&[u8]], hop: &Hop<Q>) {
    if let Some(node) = child {
        node.remove(rest, hop);
        if node.is_empty() {
            *child = None;
        }
    }
}
