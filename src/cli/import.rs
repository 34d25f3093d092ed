//! `accounts import`: what each line of a file came to, or, before anything is replaced, what would be.

use std::process::ExitCode;

use crate::admin::view::{ImportLineView, ImportPreviewView, ReplaceHitView};

use super::account_arguments::ImportArguments;
use super::api::{Api, CommandResult, read_file};
use super::output::{self, Format, Screen, TableRow, say};

/// What a line can come to, in the order in which they are counted.
const RESULTS: [&str; 4] = ["imported", "kept", "replaced", "failed"];

pub fn run(api: &Api, arguments: &ImportArguments) -> CommandResult {
    let ImportArguments { file, paused, replace, yes, output } = arguments;
    let (body, format) = (read_file(file)?, output.output);
    if *replace && !yes {
        let preview: ImportPreviewView =
            api.post_file(&format!("/api/import?paused={paused}&replace=true"), body)?;
        output::print_one(format, &preview, || previewed(&preview));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut lines, screen) = (Vec::new(), Screen::of(output.style()));
    let path = format!("/api/import?paused={paused}&replace={replace}&confirmed={yes}");
    api.post_lines(&path, body, |line: ImportLineView| {
        if format == Format::Table {
            let lead = format!("{:8}  {} of {}  {}  ", line.result, line.entry, line.of, named(&line.name));
            let detail = screen.hanging(lead.chars().count(), 10, &line.detail);
            say!("{}{detail}", lead.replacen(&line.result, &screen.tone(&line.result), 1));
        }
        lines.push(line);
    })?;
    match format {
        Format::Table => say!("{}", counted(&lines)),
        Format::Json | Format::Csv => output::print(format, &lines),
    }
    let complete = lines.last().is_none_or(|last| last.entry == last.of);
    let good = complete && lines.iter().all(|line| line.ok);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn named(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn counted(lines: &[ImportLineView]) -> String {
    let count = |result: &str| lines.iter().filter(|line| line.result == result).count();
    let counts: Vec<String> = RESULTS.iter().map(|result| format!("{} {result}", count(result))).collect();
    format!("{} of {}", counts.join(", "), lines.last().map_or(0, |last| last.of))
}

fn previewed(preview: &ImportPreviewView) -> String {
    let ImportPreviewView { hits, new, same, failing, proven, ready, living, .. } = preview;
    let mut text = format!(
        "{} accounts have another token here than in the file; the token of {proven} has worked, {ready} are ready, {living} have a \
         living access token.\n",
        hits.len()
    );
    for hit in hits {
        text.push_str(&hit_line(hit));
    }
    text.push_str(&format!(
        "Of the rest, {new} are new, {same} have this token already, {failing} cannot be imported.\n"
    ));
    text.push_str(
        "Each token is tried by one refresh, and replaces the account's own only where the platform takes it; three refusals in a row \
         end it.\nNothing was done. Add --yes to do it.\n",
    );
    text
}

fn hit_line(hit: &ReplaceHitView) -> String {
    let proven = if hit.proven { "has worked" } else { "never used" };
    let until = hit.token_until.map(|until| format!(", token until {until}")).unwrap_or_default();
    format!("  {}  {}  {}, {proven}{until}\n", hit.name, hit.realm, hit.state.word())
}

impl TableRow for ImportLineView {
    const HEADINGS: &'static [&'static str] = &["entry", "of", "name", "result", "detail"];

    fn cells(&self) -> Vec<String> {
        let (entry, of) = (self.entry.to_string(), self.of.to_string());
        vec![entry, of, self.name.clone(), self.result.clone(), self.detail.clone()]
    }
}
