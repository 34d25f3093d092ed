//! The text that tells Align which accounts are ready to be moved, so that it can be mailed as it is.
//!
//! The rule: each account stands in exactly one section, by its id, and no token, link or secret is in it.

use std::fmt::Write;

use crate::admin::view::{MigrationRealm, MigrationReport};
use crate::pairing::MigrationLine;

/// Where the migration notice asks to be told.
const TO: &str = "iTeroAPISupport@aligntech.com";

/// A section of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Ready,
    NotYet,
    Done,
    Apart,
}

pub fn text(report: &MigrationReport) -> String {
    let of = |section| report.accounts.iter().filter(move |line| section_of(line) == section);
    let count = |section| of(section).count();
    let mut text = format!(
        "To: {TO}\nSubject: iTero migration: {} of {} accounts ready to be moved\n\n\
         The changes that the migration needs are deployed: both auth and base URLs, discovery before pairing and\n\
         with each refresh, every call to the Domain and Path that discovery returns, downloads by the links in\n\
         orders, V2 of the API, and the refresh token of the pairing kept in regular use.\n\n",
        count(Section::Ready),
        report.accounts.len()
    );
    for realm in &report.realms {
        text.push_str(&realm_lines(realm));
    }
    for (section, heading) in [
        (Section::Ready, "Ready: please move these accounts to the new platform"),
        (Section::NotYet, "Not ready yet: please leave these on the old platform"),
        (Section::Done, "On the new platform already"),
        (Section::Apart, "Not part of this migration"),
    ] {
        let _ = writeln!(text, "\n{heading} ({})", count(section));
        for line in of(section) {
            let _ = writeln!(text, "  {}  {}", line.account_id, line.name);
        }
    }
    text.push_str(
        "\nA moved account's old token ends. Each account above logs in and is paired once on the new platform\n\
         after its move; please tell us when an account has been moved.\n",
    );
    text
}

fn realm_lines(realm: &MigrationRealm) -> String {
    let kind = if realm.is_new { "New platform" } else { "Old platform" };
    format!(
        "{kind} ({})\n  client id     {}\n  auth URL      {}\n  base URL      {}\n  redirect URI  {}\n  discovery     {}\n",
        realm.name, realm.client_id, realm.oauth_base, realm.base_url, realm.redirect_uri, realm.discovery
    )
}

/// An account is ready where its move was begun, since whoever runs the gateway has decided so, and where the
/// gateway serves it. One whose old token has ended stays there until it has logged in.
fn section_of(line: &MigrationLine) -> Section {
    match line {
        line if line.on_new => Section::Done,
        line if line.is_moving && !line.paused => Section::Ready,
        line if line.to.is_none() => Section::Apart,
        _ => Section::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::{MigrationState, NextBy};

    fn line(id: u64, change: impl FnOnce(&mut MigrationLine)) -> MigrationLine {
        let mut line = MigrationLine {
            name: format!("a{id}").parse().unwrap(),
            account_id: format!("{id}").parse().unwrap(),
            realm: "old".parse().unwrap(),
            migration: MigrationState::OnOld,
            to: Some("global".parse().unwrap()),
            also_in: Vec::new(),
            on_new: false,
            is_moving: false,
            paused: false,
            next_by: NextBy::Operator,
            next: String::new(),
        };
        change(&mut line);
        line
    }

    #[test]
    fn each_account_stands_in_one_section_and_no_secret_is_in_the_text() {
        let realm = MigrationRealm {
            name: "global".parse().unwrap(),
            is_new: true,
            client_id: "our-client".to_owned(),
            oauth_base: "https://identity.example".to_owned(),
            base_url: "https://api.example".to_owned(),
            redirect_uri: "https://gateway.example/oauth2/callback".to_owned(),
            discovery: "third-party version 2".to_owned(),
        };
        let accounts = vec![
            line(11, |line| line.is_moving = true),
            line(12, |_| ()),
            line(13, |line| line.on_new = true),
            line(14, |line| line.to = None),
            line(15, |line| (line.is_moving, line.paused) = (true, true)),
        ];
        let text = text(&MigrationReport { realms: vec![realm], accounts });
        assert!(text.starts_with(
            "To: iTeroAPISupport@aligntech.com\nSubject: iTero migration: 1 of 5 accounts ready to be moved\n\n"
        ));
        let sections: Vec<&str> = text.split("\n\n").collect();
        assert!(sections[2].contains("client id     our-client"), "{text}");
        assert_eq!(
            sections[3..7],
            [
                "Ready: please move these accounts to the new platform (1)\n  11  a11",
                "Not ready yet: please leave these on the old platform (2)\n  12  a12\n  15  a15",
                "On the new platform already (1)\n  13  a13",
                "Not part of this migration (1)\n  14  a14",
            ],
            "{text}"
        );
    }
}
