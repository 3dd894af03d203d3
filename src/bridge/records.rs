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

/// Entries in one piece of work, about.
const BATCH: usize = 256;

/// Who is told what became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The connection.
    pub to: ConnAddress,
    /// What it calls its message, as it wrote it.
    pub reference: Option<Box<str>>,
}

/// A message: taken whole or not at all, and written when all of it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// It, as a JSON object for each room that it is for.
    pub documents: Vec<Box<[u8]>>,
    /// Whom to tell.
    pub receipt: Option<Receipt>,
}

impl Record {
    fn bytes(&self) -> usize {
        self.documents.iter().map(|document| document.len()).sum()
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Records {
    waiting: VecDeque<Record>,
    /// Entries that those are.
    entries: usize,
    bytes: usize,
    done: Vec<(Receipt, bool)>,
    /// Entries that may wait, and their bytes.
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
            entries: 0,
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
        let bytes = self.bytes + record.bytes();
        let entries = self.entries + record.documents.len();
        if entries > self.most.0 || bytes > self.most.1 {
            return self.refuse(record);
        }
        (self.bytes, self.entries) = (bytes, entries);
        self.waiting.push_back(record);
        self.note();
    }

    fn refuse(&mut self, record: Record) {
        add(&self.tally.records_refused, record.documents.len());
        self.done.extend(record.receipt.map(|receipt| (receipt, false)));
    }

    fn note(&self) {
        set(&self.tally.records_waiting, self.entries);
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
        let (mut batch, mut entries) = (Vec::new(), 0);
        while entries < BATCH {
            let Some(record) = self.waiting.pop_front() else { break };
            entries += record.documents.len();
            batch.push(record);
        }
        self.entries -= entries;
        let commands = batch.iter().flat_map(|record| &record.documents).map(|document| {
            let mut command = cmd("XADD");
            command.arg(&self.key).arg("MAXLEN").arg("~").arg(self.length).arg("*");
            command.arg("event").arg(&document[..]);
            command
        });
        let commands: Vec<Cmd> = commands.collect();
        (!batch.is_empty()).then_some((commands, batch))
    }

    /// The link has broken while these were under way.
    pub(super) fn put_back(&mut self, batch: Vec<Record>) {
        for record in batch.into_iter().rev() {
            self.entries += record.documents.len();
            self.waiting.push_front(record);
        }
        self.note();
    }

    /// None of these will be written.
    pub(super) fn give_up(&mut self) {
        (self.entries, self.bytes) = (0, 0);
        for record in std::mem::take(&mut self.waiting) {
            self.refuse(record);
        }
        self.note();
    }

    /// What came of the work.
    pub(super) fn finish(&mut self, batch: Vec<Record>, answers: Vec<Value>) {
        let mut answers = answers.into_iter();
        let mut why = None;
        for record in batch {
            self.bytes -= record.bytes();
            let mut written = 0;
            for _ in &record.documents {
                match answers.next() {
                    Some(Value::BulkString(_) | Value::SimpleString(_)) => written += 1,
                    answer => why = Some(answer),
                }
            }
            let count = record.documents.len();
            add(&self.tally.records_written, written);
            add(&self.tally.records_refused, count - written);
            self.done.extend(record.receipt.map(|receipt| (receipt, written == count)));
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
        Record { documents: vec![document], receipt: Some(Receipt { to, reference: None }) }
    }

    fn records(most: (usize, usize)) -> Records {
        Records {
            waiting: VecDeque::new(),
            entries: 0,
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
        assert_eq!(records.bytes, records.waiting.iter().map(Record::bytes).sum::<usize>());
        assert_eq!(records.entries, records.waiting.len());
    }

    #[test]
    fn what_is_for_several_rooms_is_told_of_once_and_only_when_all_of_it_is_there() {
        let mut records = records((6, 1000));
        let several = |number| {
            let one = record(number);
            Record { documents: vec![one.documents[0].clone(); 3], ..one }
        };
        (0..3).for_each(|number| records.push(several(number)));
        assert_eq!(told(&mut records), [(2, false)], "six are taken, and three more are refused");
        let (commands, batch) = records.work().unwrap();
        assert_eq!((commands.len(), batch.len(), records.entries), (6, 2, 0));
        records.put_back(batch);
        assert_eq!(records.entries, 6);
        let (_, batch) = records.work().unwrap();
        let mut answers = vec![Value::BulkString(b"1-1".to_vec()); 6];
        answers[3] = Value::Nil;
        records.finish(batch, answers);
        assert_eq!(
            told(&mut records),
            [(0, true), (1, false)],
            "the first of the second was refused"
        );
        assert_eq!((records.bytes, records.entries), (0, 0));
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
