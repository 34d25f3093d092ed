//! How a command prints what it was asked for, as typed: `-o table|json|csv` and `--wide`.

use clap::{Args, ValueEnum};

/// `-o table|json|csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Csv,
}

impl Format {
    pub fn word(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

/// How a command prints what it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub format: Format,
    /// Every column, times in full, nothing cut.
    pub wide: bool,
}

impl From<Format> for Style {
    fn from(format: Format) -> Self {
        Self { format, wide: false }
    }
}

#[derive(Debug, Args)]
pub struct OutputArguments {
    /// How to print; with json, errors on standard error are JSON too.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Tables with every column and with times in full, as broad as they get.
    #[arg(long)]
    pub wide: bool,
}

impl OutputArguments {
    pub fn style(&self) -> Style {
        Style { format: self.output, wide: self.wide }
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Format::Table, Format::Json, Format::Csv]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.word()))
    }
}
