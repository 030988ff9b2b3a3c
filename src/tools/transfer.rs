//! Messages out of a store and into one, through the store's own readers and committer.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::{Arc, mpsc};

use smallvec::smallvec;

use super::{ToolError, json_lines::Line};
use crate::broker::{
    definition::{Definition, QueueDefinition},
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::arguments::max_priority,
};
use crate::storage::{
    Loaded, Op, ReadRequest, RecoveredQueue, Store, StoreError, StoreEvents, StoreOptions, Target,
};

/// One read of the store.
const READ_BYTES: usize = 1024 * 1024;
/// Messages of a holding queue read at once.
const SCHEDULED_PAGE: usize = 1000;
/// Imported messages are made durable after so many bytes of lines; that bounds what waits.
const IMPORT_BYTES: usize = 4 * 1024 * 1024;

/// An answer of the store's readers, or why there is none.
struct Answers(mpsc::Sender<Result<Loaded, StoreError>>);

impl StoreEvents for Answers {
    fn committed(&self, _queues: &[(QueueId, Seq)]) {}

    fn loaded(&self, _queue: QueueId, loaded: Loaded) {
        // Nobody listens only after an error that was reported already.
        self.0.send(Ok(loaded)).unwrap_or(());
    }

    fn read_failed(&self, _queue: QueueId, error: StoreError) {
        self.0.send(Err(error)).unwrap_or(());
    }

    fn failed(&self, error: StoreError) {
        self.0.send(Err(error)).unwrap_or(());
    }

    fn full(&self, _full: bool) {}
}

/// A store opened for one queue; closed when dropped.
struct Opened {
    store: Store,
    definition: QueueDefinition,
    row: RecoveredQueue,
    answers: mpsc::Receiver<Result<Loaded, StoreError>>,
}

fn open(data_dir: &Path, vhost: &str, queue: &str) -> Result<Opened, ToolError> {
    if !data_dir.join("db/CURRENT").exists() {
        return Err(StoreError::no_store(data_dir).into());
    }
    let (store, recovered) = Store::open(StoreOptions::new(data_dir))?;
    let definition = recovered
        .definitions
        .into_iter()
        .find_map(|definition| match definition {
            Definition::Queue(found) if &*found.vhost == vhost && &*found.name == queue => Some(found),
            _ => None,
        });
    let found = definition.and_then(|definition| {
        let row = recovered.queues.into_iter().find(|row| row.id == definition.id)?;
        Some((definition, row))
    });
    let (definition, row) = found.ok_or_else(|| ToolError::NoQueue {
        queue: queue.to_owned(),
        vhost: vhost.to_owned(),
    })?;
    let (sender, answers) = mpsc::channel();
    store.start(Arc::new(Answers(sender)))?;
    Ok(Opened {
        store,
        definition,
        row,
        answers,
    })
}

/// Writes all messages of a queue, the highest priority first. Gives their number.
pub(super) fn export(
    data_dir: &Path,
    vhost: &str,
    queue: &str,
    mut out: impl Write,
) -> Result<u64, ToolError> {
    let opened = open(data_dir, vhost, queue)?;
    let mut count = 0;
    for (lane, low) in opened.row.lanes.iter().rev() {
        let mut from = Some(*low);
        while let Some(start) = from {
            opened.store.read(ReadRequest {
                queue: opened.row.id,
                lane: *lane,
                from: start,
                until: opened.row.next_seq,
                max_bytes: READ_BYTES,
                settled: true,
            });
            let loaded = opened.answers.recv().map_err(|_closed| closed())??;
            let mut deadlines = loaded.deadlines.iter().peekable();
            for (seq, message) in &loaded.entries {
                let deadline = deadlines.next_if(|(of, _)| of == seq);
                write(&mut out, message, deadline.map_or(Timestamp::NONE, |(_, at)| *at))?;
                count += 1;
            }
            from = loaded.next;
        }
    }
    // A holding queue, `amq.delayed.` and a number, has its messages by their time.
    let mut from = (opened.row.scheduled.0 > 0).then_some((Timestamp::NONE, Seq(0)));
    while let Some(start) = from {
        let page = opened
            .store
            .scheduled_page(opened.row.id, start, SCHEDULED_PAGE)?;
        from = page.last().map(|((due, seq), _)| (*due, seq.next()));
        for ((due, _), message) in &page {
            write(&mut out, message, *due)?;
            count += 1;
        }
    }
    out.flush()?;
    opened.store.close();
    Ok(count)
}

fn write(out: &mut impl Write, message: &Message, expires_at: Timestamp) -> Result<(), ToolError> {
    serde_json::to_writer(&mut *out, &Line::of(message, expires_at)).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Appends a message per line. Gives their number; all of them are synced then.
pub(super) fn import(
    data_dir: &Path,
    vhost: &str,
    queue: &str,
    input: impl BufRead,
) -> Result<u64, ToolError> {
    let opened = open(data_dir, vhost, queue)?;
    let max = max_priority(&opened.definition.arguments);
    let (mut seq, mut count, mut waiting) = (opened.row.next_seq, 0, 0);
    for (number, line) in (1..).zip(input.lines()) {
        let line = line?;
        let parsed: Result<Line, _> = serde_json::from_str(&line);
        let message = parsed
            .map_err(|error| error.to_string())
            .and_then(|line| line.message());
        let (message, expires_at) = match message {
            Ok(found) => found,
            Err(problem) => {
                settle(&opened.store)?;
                opened.store.close();
                return Err(ToolError::Line {
                    line: number,
                    problem,
                });
            }
        };
        let lane = message.priority().min(max);
        let targets = smallvec![Target {
            queue: opened.row.id,
            lane,
            seq,
            expires_at,
        }];
        opened.store.log(&mut vec![Op::Publish {
            message,
            targets,
            confirm: None,
        }]);
        seq = seq.next();
        count += 1;
        waiting += line.len();
        if waiting >= IMPORT_BYTES {
            settle(&opened.store)?;
            waiting = 0;
        }
    }
    settle(&opened.store)?;
    opened.store.close();
    Ok(count)
}

/// Returns when everything logged is on disk.
fn settle(store: &Store) -> Result<(), ToolError> {
    let (sender, receiver) = mpsc::channel();
    store.log(&mut vec![Op::Barrier {
        done: Box::new(move |result| sender.send(result).unwrap_or(())),
    }]);
    match receiver.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(std::io::Error::other(failure).into()),
        Err(_closed) => Err(closed()),
    }
}

fn closed() -> ToolError {
    std::io::Error::other("the store stopped").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::field::FieldTable;
    use crate::storage::check;

    fn store_with_queue(dir: &Path) {
        store_with(dir, "q");
    }

    fn store_with(dir: &Path, name: &str) {
        let (store, _) = Store::open(StoreOptions::new(dir)).unwrap();
        let (sender, _answers) = mpsc::channel();
        store.start(Arc::new(Answers(sender))).unwrap();
        let definition = Definition::Queue(QueueDefinition {
            vhost: "/".into(),
            name: name.into(),
            id: store.next_queue_id(),
            durable: true,
            auto_delete: false,
            arguments: FieldTable::default(),
        });
        store.log(&mut vec![Op::Define {
            definition,
            done: None,
        }]);
        store.close();
    }

    #[test]
    fn what_is_exported_can_be_imported_and_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        store_with_queue(dir.path());
        let large = "QUJD".repeat(40_000);
        let lines = format!(
            "{{\"exchange\":\"e\",\"routing_key\":\"k\",\"properties\":\"EAAC\",\"body\":\"aGVsbG8=\",\"priority\":0}}\n\
             {{\"exchange\":\"\",\"routing_key\":\"q\",\"properties\":\"EAAC\",\"body\":\"{large}\",\"expires_at_ms\":32503680000000,\"priority\":0}}\n"
        );
        assert_eq!(import(dir.path(), "/", "q", lines.as_bytes()).unwrap(), 2);
        let mut out = Vec::new();
        assert_eq!(export(dir.path(), "/", "q", &mut out).unwrap(), 2);
        assert_eq!(String::from_utf8(out).unwrap(), lines);
        let report = check(dir.path()).unwrap();
        assert_eq!(
            (report.messages, report.findings_count),
            (2, 0),
            "{:?}",
            report.findings
        );
    }

    #[test]
    fn messages_that_wait_are_exported_with_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let name = "amq.delayed.1";
        store_with(dir.path(), name);
        let line = |due| {
            format!(
                "{{\"exchange\":\"\",\"routing_key\":\"q\",\"properties\":\"EAAC\",\"body\":\"aGVsbG8=\",\
                 \"expires_at_ms\":{due},\"priority\":0}}\n"
            )
        };
        let lines = line(3000) + &line(2000);
        assert_eq!(import(dir.path(), "/", name, lines.as_bytes()).unwrap(), 2);
        let mut out = Vec::new();
        assert_eq!(export(dir.path(), "/", name, &mut out).unwrap(), 2);
        assert_eq!(String::from_utf8(out).unwrap(), line(2000) + &line(3000));
        let report = check(dir.path()).unwrap();
        assert_eq!(report.findings_count, 0, "{:?}", report.findings);
    }

    #[test]
    fn a_bad_line_is_named_and_those_before_it_stay() {
        let dir = tempfile::tempdir().unwrap();
        store_with_queue(dir.path());
        let good = "{\"exchange\":\"\",\"routing_key\":\"q\",\"properties\":\"EAAC\",\"body\":\"\"}";
        for bad in [
            "",
            "{}",
            &good.replace("EAAC", "/////w=="),
            &good.replace("\"body\":\"\"", "\"body\":\"%\""),
        ] {
            let error = import(dir.path(), "/", "q", format!("{good}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(matches!(error, ToolError::Line { line: 2, .. }), "{bad}: {error}");
        }
        assert_eq!(check(dir.path()).unwrap().messages, 4);
        let error = export(dir.path(), "/", "nothing", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
