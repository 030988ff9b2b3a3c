//! Class confirm.

use std::sync::Arc;

use super::Reply;
use crate::broker::error::BrokerError;
use crate::protocol::method::Method;
use crate::server::{confirms::ChannelConfirms, connection::Connection};

impl Connection {
    /// confirm.select; a second one changes nothing.
    pub(super) fn confirm_select(&mut self, number: u16, method: &Method) -> Result<Reply, BrokerError> {
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(Reply::None);
        };
        if channel.transaction.is_some() {
            return Err(BrokerError::ModeSwitch {
                from: "tx",
                to: "confirm",
            });
        }
        let (outbox, totals) = (&self.outbox, &self.vhost.counters);
        let counters = &channel.out.counters;
        let confirms = channel.confirms.get_or_insert_with(|| {
            ChannelConfirms::new(
                number,
                Arc::clone(outbox),
                [Arc::clone(counters), Arc::clone(totals)],
            )
        });
        channel.out.facts.confirms.get_or_init(|| Arc::clone(confirms));
        let nowait = matches!(method, Method::ConfirmSelect { nowait: true });
        Ok(Reply::unless(nowait, Method::ConfirmSelectOk))
    }
}
