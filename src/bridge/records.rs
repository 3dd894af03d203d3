//! What clients say to back ends, in a stream in Redis that these read.
//!
//! Each message is one entry of the stream, in the order in which it came; a client hears that it is taken when Redis
//! has it. Where the link breaks in between nobody knows whether Redis does, and it is written again: so every message
//! that was acknowledged is there at least once, and an entry that stands there twice has the same id inside. The stream
//! is trimmed by Redis to about a number of entries. Who reads it, in which groups and how far, is the readers' business.
//!
//! What waits is bounded by number and bytes; beyond that a message is refused.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::{Cmd, Value, cmd};

use super::line::{Line, Pending};
use super::options::Options;
use super::server::hub_prefix;
use super::tally::{Tally, add, set};
use crate::base::id::ConnAddress;

/// Entries in one piece of work.
const BATCH: usize = 256;

/// Who is told what became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The connection.
    pub to: ConnAddress,
    /// What it calls its message, as it wrote it.
    pub reference: Option<Box<str>>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// It, as a JSON object.
    pub document: Box<[u8]>,
    /// Whom to tell.
    pub receipt: Option<Receipt>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Records {
    waiting: VecDeque<Record>,
    bytes: usize,
    done: Vec<(Receipt, bool)>,
    /// Records that may wait, and their bytes.
    most: (usize, usize),
    /// About so many entries stay.
    length: usize,
    key: String,
    tally: Arc<Tally>,
}

impl Records {
    pub(super) fn new(options: &Options, tally: Arc<Tally>) -> Self {
        let prefix =
            if options.cluster { hub_prefix(&options.prefix) } else { options.prefix.clone() };
        let bounds = &options.bounds;
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            done: Vec::new(),
            most: (bounds.queue, bounds.queue_bytes),
            length: bounds.stream,
            key: format!("{prefix}:messages"),
            tally,
        }
    }

    /// To be written.
    pub(super) fn push(&mut self, record: Record) {
        let bytes = self.bytes + record.document.len();
        if self.waiting.len() >= self.most.0 || bytes > self.most.1 {
            return self.refuse(record);
        }
        self.bytes = bytes;
        self.waiting.push_back(record);
        self.note();
    }

    fn refuse(&mut self, record: Record) {
        add(&self.tally.records_refused, 1);
        self.done.extend(record.receipt.map(|receipt| (receipt, false)));
    }

    fn note(&self) {
        set(&self.tally.records_waiting, self.waiting.len());
    }

    /// Those of whom is known what became of theirs.
    pub(super) fn take_done(&mut self) -> Vec<(Receipt, bool)> {
        std::mem::take(&mut self.done)
    }

    /// The next work, if there is any.
    pub(super) fn next(&mut self, line: &Line) -> Option<(Pending, Vec<Record>)> {
        let (commands, batch) = self.work()?;
        Some((line.ask_hub(commands), batch))
    }

    fn work(&mut self) -> Option<(Vec<Cmd>, Vec<Record>)> {
        let count = BATCH.min(self.waiting.len());
        let batch: Vec<Record> = self.waiting.drain(..count).collect();
        let commands = batch.iter().map(|record| {
            let mut command = cmd("XADD");
            command.arg(&self.key).arg("MAXLEN").arg("~").arg(self.length).arg("*");
            command.arg("event").arg(&record.document[..]);
            command
        });
        let commands: Vec<Cmd> = commands.collect();
        (!batch.is_empty()).then_some((commands, batch))
    }

    /// The link has broken while these were under way.
    pub(super) fn put_back(&mut self, batch: Vec<Record>) {
        for record in batch.into_iter().rev() {
            self.waiting.push_front(record);
        }
        self.note();
    }

    /// What came of the work.
    pub(super) fn finish(&mut self, batch: Vec<Record>, answers: Vec<Value>) {
        let answers = answers.into_iter().chain(std::iter::repeat(Value::Nil));
        let mut why = None;
        for (record, answer) in batch.into_iter().zip(answers) {
            self.bytes -= record.document.len();
            if matches!(answer, Value::BulkString(_) | Value::SimpleString(_)) {
                add(&self.tally.records_written, 1);
                self.done.extend(record.receipt.map(|receipt| (receipt, true)));
            } else {
                why = Some(answer);
                self.refuse(record);
            }
        }
        if let Some(why) = why {
            tracing::warn!("Redis refuses what clients say to back ends: {why:?}");
        }
        self.note();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, ShardId};

    fn record(number: u32) -> Record {
        let conn = ConnId { index: number, generation: 0 };
        let to = ConnAddress::alone(ShardId(0), conn);
        let document = format!("{{\"n\":{number}}}").into_bytes().into();
        Record { document, receipt: Some(Receipt { to, reference: None }) }
    }

    fn records(most: (usize, usize)) -> Records {
        Records {
            waiting: VecDeque::new(),
            bytes: 0,
            done: Vec::new(),
            most,
            length: 7,
            key: "t:messages".to_owned(),
            tally: Arc::default(),
        }
    }

    fn told(records: &mut Records) -> Vec<(u32, bool)> {
        let done = records.take_done().into_iter();
        done.map(|(receipt, is_written)| (receipt.to.conn.index, is_written)).collect()
    }

    #[test]
    fn what_was_under_way_when_the_link_broke_goes_again_and_first() {
        let mut records = records((1000, 100_000));
        (0..300).for_each(|number| records.push(record(number)));
        let (commands, batch) = records.work().unwrap();
        assert_eq!((commands.len(), batch.len()), (BATCH, BATCH));
        let packed = String::from_utf8(commands[0].get_packed_command()).unwrap();
        for word in ["XADD", "t:messages", "MAXLEN", "~", "7", "*", "event", "{\"n\":0}"] {
            assert!(packed.contains(&format!("\r\n{word}\r\n")), "{packed}");
        }
        records.put_back(batch);
        assert_eq!(told(&mut records), []);
        let (_, batch) = records.work().unwrap();
        assert_eq!(batch[0], record(0));
        let mut answers = vec![Value::BulkString(b"1-1".to_vec()); BATCH];
        answers[1] = Value::Nil;
        records.finish(batch, answers);
        let told = told(&mut records);
        assert_eq!((told.len(), &told[..3]), (BATCH, &[(0, true), (1, false), (2, true)][..]));
        assert_eq!(
            records.bytes,
            records.waiting.iter().map(|one| one.document.len()).sum::<usize>()
        );
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_bytes() {
        let mut by_number = records((2, 1000));
        (0..3).for_each(|number| by_number.push(record(number)));
        assert_eq!(told(&mut by_number), [(2, false)]);
        let mut by_bytes = records((100, 20));
        (0..3).for_each(|number| by_bytes.push(record(number)));
        assert_eq!(told(&mut by_bytes), [(2, false)]);
        let (_, batch) = by_bytes.work().unwrap();
        by_bytes.push(record(4));
        assert_eq!(told(&mut by_bytes), [(4, false)], "what is under way counts as well");
        by_bytes.finish(batch, vec![Value::BulkString(Vec::new()); 2]);
        assert_eq!(told(&mut by_bytes), [(0, true), (1, true)]);
        by_bytes.push(record(5));
        assert_eq!(by_bytes.waiting.len(), 1);
    }
}
