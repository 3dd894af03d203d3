//! The tables of totals: two columns each, a name and its figure.
//!
//! They hold everything of an outcome that no tile or plot shows, so that the page can be checked
//! against itself. Counts are exact here.

use super::escape;
use crate::figures;
use crate::human;
use crate::outcome::{Environment, GeneratorUse, Messages, Outcome, ServerUse, Sessions};

/// All tables of totals.
pub(super) fn all(outcome: &Outcome) -> String {
    let totals = &outcome.totals;
    let mut tables = vec![
        messages(&totals.messages),
        sessions(&totals.sessions),
        Table::counted("Close codes", &totals.sessions.close_codes),
        Table::counted("Failures", &totals.failures),
    ];
    if let Some(server) = &outcome.server {
        tables.extend([of_server(server), memory(server), kernel(server), counters(server)]);
    }
    tables.extend([generator(&outcome.generator), phases(outcome), environment(outcome)]);
    let mut text = String::from("<section class=\"tables\">\n");
    text.extend(tables.iter().map(Table::render));
    text.push_str("</section>\n");
    text
}

/// A heading and rows of name and figure.
struct Table {
    title: &'static str,
    rows: Vec<(String, String)>,
}

impl Table {
    fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    fn counted(title: &'static str, counts: &std::collections::BTreeMap<String, u64>) -> Self {
        counts.iter().fold(Self::new(title), |table, (name, number)| table.count(name, *number))
    }

    fn row(mut self, name: &str, figure: String) -> Self {
        self.rows.push((name.to_owned(), figure));
        self
    }

    fn count(self, name: &str, number: u64) -> Self {
        self.row(name, human::count(number))
    }

    /// A row only where there is a figure.
    fn maybe(self, name: &str, number: Option<f64>, write: impl Fn(f64) -> String) -> Self {
        match number {
            Some(number) => self.row(name, write(number)),
            None => self,
        }
    }

    fn render(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut text = format!("<table><caption>{}</caption><tbody>\n", self.title);
        for (name, figure) in &self.rows {
            let (name, figure) = (escape(name), escape(figure));
            text.push_str(&format!("<tr><th>{name}</th><td>{figure}</td></tr>\n"));
        }
        text.push_str("</tbody></table>\n");
        text
    }
}

fn messages(messages: &Messages) -> Table {
    if messages.sent == 0 && messages.expected == 0 && messages.received == 0 {
        return Table::new("Messages");
    }
    Table::new("Messages")
        .count("sent", messages.sent)
        .count("expected", messages.expected)
        .count("received", messages.received)
        .count("dropped by policy", messages.dropped_by_policy)
        .count("lost", messages.lost)
        .count("duplicates", messages.duplicates)
        .count("reordered", messages.reordered)
        .count("offset breaks", messages.offset_breaks)
        .count("corrupt", messages.corrupt)
        .row("bytes sent", human::bytes(messages.sent_bytes as f64))
        .row("bytes received", human::bytes(messages.received_bytes as f64))
}

fn sessions(sessions: &Sessions) -> Table {
    Table::new("Sessions")
        .count("opened", sessions.opened)
        .count("refused", sessions.refused)
        .count("ended by plan", sessions.ended_by_plan)
        .count("ended by the server", sessions.ended_by_server)
}

fn of_server(server: &ServerUse) -> Table {
    Table::new("Server")
        .row("command", server.command.clone())
        .row("process", server.pid.to_string())
        .row("processor time", human::seconds(server.cpu_s))
        .maybe("a message", server.cpu_us_per_message, human::micros)
        .maybe("a session", server.cpu_us_per_session, human::micros)
        .row("core busy", human::percent(server.core_busy))
        .maybe("core busy, a message", server.core_busy_us_per_message, human::micros)
        .maybe("frames a write", server.frames_per_write, human::digits)
}

fn memory(server: &ServerUse) -> Table {
    let memory = &server.memory;
    let bytes = |bytes: u64| human::bytes(bytes as f64);
    let each = human::exact_bytes;
    Table::new("Memory")
        .row("anonymous, before", bytes(memory.rss_anon_start))
        .row("connected", bytes(memory.rss_anon_connected))
        .row("at most", bytes(memory.rss_anon_peak))
        .row("after", bytes(memory.rss_anon_end))
        .maybe("a connection, user", memory.user_bytes_per_connection, each)
        .maybe("a connection, Pss", memory.pss_anon_per_connection, each)
        .maybe("a connection, kernel", memory.kernel_bytes_per_connection, each)
}

fn kernel(server: &ServerUse) -> Table {
    let memory = &server.memory;
    let table = Table::new("Growth in the kernel");
    let table = memory.slabs.iter().fold(table, |table, (name, growth)| {
        table.row(&format!("slab {name}"), human::bytes(*growth as f64))
    });
    memory.sockets.iter().fold(table, |table, (name, growth)| table.row(name, signed(*growth)))
}

/// An exact number that may be negative.
fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", human::count(number.unsigned_abs()))
}

fn counters(server: &ServerUse) -> Table {
    server.counters.iter().fold(Table::new("Counters of the server"), |table, (name, growth)| {
        table.row(name, human::compact(*growth))
    })
}

fn generator(generator: &GeneratorUse) -> Table {
    Table::new("Generator")
        .row("processor time", human::seconds(generator.cpu_s))
        .row("core busy", human::percent(generator.core_busy))
        .maybe("a message", generator.cpu_us_per_message, human::micros)
        .maybe("memory a client", generator.bytes_per_client, human::exact_bytes)
        .maybe("behind plan, p99", generator.late_p99_us, human::micros)
        .maybe("behind plan, max", generator.late_max_us, human::micros)
        .row("other processes, of a core", human::percent(generator.foreign))
        .row("hypervisor, of a core", human::percent(generator.stolen))
}

fn phases(outcome: &Outcome) -> Table {
    outcome.phases.iter().fold(Table::new("Phases"), |table, phase| {
        table.row(&phase.name, format!("{:.1} to {:.1} s", phase.from_s, phase.to_s))
    })
}

fn environment(outcome: &Outcome) -> Table {
    let Environment {
        kernel,
        processor,
        cores,
        memory_bytes,
        virtualised,
        descriptors,
        port_range,
        own_cores,
    } = &outcome.about.environment;
    let own: Vec<_> = own_cores.iter().map(u32::to_string).collect();
    let table = Table::new("Environment");
    let words = [("kernel", kernel), ("processor", processor), ("ports", port_range)];
    let table = words
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .fold(table, |table, (name, value)| table.row(name, value.clone()));
    let table = if own.is_empty() { table } else { table.row("generator's cores", own.join(", ")) };
    table
        .count("cores", *cores)
        .row("memory", human::bytes(*memory_bytes as f64))
        .row("virtualised", if *virtualised { "yes" } else { "no" }.to_owned())
        .count("descriptors a table", *descriptors)
        .count("threads", outcome.about.threads)
        .row("lasted", human::seconds(figures::duration_s(outcome)))
}
