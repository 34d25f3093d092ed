//! `accounts compare`: where two platforms answer the same reads differently, a line for each.

use std::process::ExitCode;

use clap::Args;

use crate::admin::view::{CompareReport, DifferenceView};
use crate::model::account::RealmName;

use super::api::{Api, CliError, CommandResult, segment};
use super::output::{self, Format, Style, TableRow, say};
use super::output_arguments::OutputArguments;

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Name or id.
    pub account: String,
    /// The two realms, by giving this twice. Without it: the current one and the only other one.
    #[arg(long = "realm", value_name = "REALM")]
    pub realms: Vec<RealmName>,
    /// Also read a lab's order list. What takes an order off that list is not known, so it is left alone
    /// otherwise.
    #[arg(long)]
    pub lists: bool,
    /// Also an account that is not marked as a test account.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

pub fn run(api: &Api, arguments: &CompareArguments) -> CommandResult {
    let CompareArguments { account, lists, force, .. } = arguments;
    let mut path = format!("/api/accounts/{}/compare?lists={lists}&force={force}", segment(account));
    match &arguments.realms[..] {
        [] => {}
        [first, second] => {
            let (first, second) = (segment(first.as_str()), segment(second.as_str()));
            path.push_str(&format!("&first={first}&second={second}"));
        }
        _ => return Err(CliError::other("give --realm twice, or not at all")),
    }
    let report: CompareReport = api.post(&path, &())?;
    print(arguments.output.style(), &report);
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(style: Style, report: &CompareReport) {
    match style.format {
        Format::Table => {
            report.differences.iter().for_each(|difference| say!("{}", line(difference, report)))
        }
        Format::Json => output::print_one(style, report, String::new),
        Format::Csv => output::print(style, &report.differences),
    }
}

impl TableRow for DifferenceView {
    const HEADINGS: &'static [&'static str] = &["kind", "at", "first", "second", "times", "calls"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.at.clone(),
            self.first.clone(),
            self.second.clone(),
            self.times.to_string(),
            self.calls.join(" "),
        ]
    }
}

fn line(difference: &DifferenceView, report: &CompareReport) -> String {
    let DifferenceView { kind, calls, at, first, second, times } = difference;
    let (one, other) = (&report.first.realm, &report.second.realm);
    let alone = if first.is_empty() { (other, second) } else { (one, first) };
    let what = match kind.as_str() {
        "status" => format!("status {first} in {one}, {second} in {other}"),
        "entry" => format!("{at} {} is in {} alone", alone.1, alone.0),
        "field" => format!("field {at} is in {} alone", alone.0),
        "renamed" => format!("field {first} in {one} is called {second} in {other}"),
        "link_host" => format!("links lead to {first} in {one}, to {second} in {other}"),
        "value" => format!("{at} differs: {first} in {one}, {second} in {other} (hashes)"),
        _ => format!("no JSON in {}", alone.0),
    };
    let times = if *times > 1 { format!(", {times} times") } else { String::new() };
    output::shown(&format!("{what} (GET {}{times})", calls.join(", GET ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_both_sides_and_the_calls() {
        let report: CompareReport = serde_json::from_value(serde_json::json!({
            "account": "smile", "calls": 4,
            "first": {"realm": "old", "route": "https://old.example/v2"},
            "second": {"realm": "global", "route": "https://eu.example/v2"},
            "differences": [
                {"kind": "entry", "calls": ["/orders/practice"], "at": "Data", "first": "17", "second": "", "times": 1},
                {"kind": "value", "calls": ["/orders/practice", "/orders/{rxId}"], "at": "Data.Units", "first": "a1", "second": "b2", "times": 2},
            ],
        }))
        .unwrap();
        let lines: Vec<String> = report.differences.iter().map(|it| line(it, &report)).collect();
        assert_eq!(
            lines,
            [
                "Data 17 is in old alone (GET /orders/practice)",
                "Data.Units differs: a1 in old, b2 in global (hashes) (GET /orders/practice, GET /orders/{rxId}, 2 times)",
            ]
        );
    }
}
