//! `group` on realms and callers: what belongs together. The rule: no host, no credentials and no entry of a
//! caller lead from one group into another; a configuration where one would does not start (threats, rows 7,
//! 24, 26).

use std::net::IpAddr;

use crate::model::account::RealmGroup;
use crate::model::route::HostPattern;

use super::reader::{Location, Reader, Reported, Section, TomlValue};
use super::{Reach, RealmConfig, RealmKind};

/// What callers have to know of a realm, whether the rest of it is valid or not.
pub(super) struct RealmPlace {
    pub realm: String,
    pub group: Option<RealmGroup>,
    /// On the new platform, as far as that could be read.
    pub is_new: bool,
}

/// A caller's group, and the realms that it can reach.
pub(super) struct CallerGroup<'a> {
    group: Option<RealmGroup>,
    places: &'a [RealmPlace],
}

/// The word for having none; as a name of a group it would only mislead.
const DEFAULT: &str = "default";

pub(super) fn group(section: &Section<'_>) -> Result<Option<RealmGroup>, Reported> {
    section.optional("group", |value| {
        let group: RealmGroup = value.parse("write a word, like \"china\"")?;
        if group.as_str() == DEFAULT {
            let fix = "remove the line to be in the default group, or choose another word";
            return value.refuse("is the word for having no group", fix);
        }
        Ok(group)
    })
}

fn shown(group: Option<&RealmGroup>) -> String {
    group.map_or_else(|| "the default group".to_owned(), |group| format!("group {group}"))
}

/// Realms of different groups share neither credentials nor hosts: what one holds must be worth nothing to
/// the other, and no answer of a platform may name an address of the other's.
pub(super) fn keep_apart(reader: &Reader<'_>, realms: &[(Location, RealmConfig)]) {
    for (at, (location, realm)) in realms.iter().enumerate() {
        for (_, other) in realms[..at].iter().filter(|(_, other)| other.group != realm.group) {
            let sides = format!(
                "the one is of {}, the other of {}",
                shown(realm.group.as_ref()),
                shown(other.group.as_ref())
            );
            let own =
                "use the credentials that Align gave you for this realm, or write the same group in both";
            if realm.client_id == other.client_id && realm.oauth_base != other.oauth_base {
                let what = format!("has the client_id of realm {}, and {sides}", other.name);
                reader.problem(location, what, own);
            }
            if realm.client_secret == other.client_secret {
                let what = format!("has the client_secret of realm {}, and {sides}", other.name);
                reader.problem(location, what, own);
            }
            if let Some((mine, theirs)) = shared_host(realm, other) {
                let what = format!("reaches {mine}, and realm {} reaches {theirs}; {sides}", other.name);
                let fix = "list under each realm its own hosts, so that no token can cross, or write the same \
                           group in both";
                reader.problem(location, what, fix);
            }
        }
    }
}

fn shared_host(realm: &RealmConfig, other: &RealmConfig) -> Option<(HostPattern, HostPattern)> {
    let (mine, theirs) = (reached(realm), reached(other));
    // A sandbox has one address for all its platforms and tells them apart by port.
    let is_sandbox = realm.hosts.allow_insecure && other.hosts.allow_insecure;
    let counts = |pattern: &&HostPattern| !(is_sandbox && is_loopback_address(pattern));
    let mut pairs = mine.iter().filter(counts).flat_map(|one| {
        theirs.iter().filter(|another| one.overlaps(another)).map(move |another| (one, another))
    });
    pairs.next().map(|(one, another)| (one.clone(), another.clone()))
}

/// All hosts that credentials or tokens of a realm may be sent to.
fn reached(realm: &RealmConfig) -> Vec<HostPattern> {
    let bases = [&realm.oauth_base, &realm.base_url];
    let bases = bases.into_iter().filter_map(|url| url.host_str()?.parse().ok());
    realm.hosts.allowed.iter().chain(&realm.link_hosts).cloned().chain(bases).collect()
}

fn is_loopback_address(pattern: &HostPattern) -> bool {
    let text = pattern.to_string();
    text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl<'a> CallerGroup<'a> {
    /// Reads a caller's `group`; one that no realm has would reach nothing.
    pub fn of(section: &Section<'_>, places: &'a [RealmPlace]) -> Result<Self, Reported> {
        let group = group(section)?;
        let caller = Self { group, places };
        if !places.is_empty() && caller.realms().is_empty() {
            let what = format!("is of {}, and no realm is: it could reach no account", shown(caller.group()));
            let fix = format!("write the group of the realms that it calls: {}", all_groups(places));
            section.reader.problem(&section.location_of("group"), what, fix);
            return Err(Reported);
        }
        Ok(caller)
    }

    fn group(&self) -> Option<&RealmGroup> {
        self.group.as_ref()
    }

    pub fn reach(&self) -> Reach {
        Reach::Group(self.group.clone())
    }

    /// Those of its group, in the file's order.
    pub fn realms(&self) -> Vec<&'a str> {
        self.own().map(|place| place.realm.as_str()).collect()
    }

    /// The first on the new platform, or the first of all.
    pub fn newest(&self) -> Option<&'a str> {
        let newest = self.own().find(|place| place.is_new).or_else(|| self.own().next());
        newest.map(|place| place.realm.as_str())
    }

    /// Refuses a value that names a realm of another group.
    pub fn refuse_other_group(&self, value: &TomlValue<'_>, realm: &str) -> Result<(), Reported> {
        let place = self.places.iter().find(|place| place.realm == realm);
        match place.filter(|place| place.group != self.group) {
            None => Ok(()),
            Some(place) => {
                let theirs = shown(place.group.as_ref());
                let what =
                    format!("realm {realm:?} is of {theirs}, and this caller of {}", shown(self.group()));
                let fix = "give its accounts to a caller of that group, with a key of its own";
                value.refuse(what, fix)
            }
        }
    }

    fn own(&self) -> impl Iterator<Item = &'a RealmPlace> {
        self.places.iter().filter(|place| place.group == self.group)
    }
}

fn all_groups(places: &[RealmPlace]) -> String {
    let mut words: Vec<String> = places
        .iter()
        .map(|place| match &place.group {
            Some(group) => format!("group = \"{group}\""),
            None => "none, for the default group".to_owned(),
        })
        .collect();
    words.sort();
    words.dedup();
    words.join(", or ")
}

impl RealmPlace {
    pub fn new(realm: &str, group: Option<RealmGroup>) -> Self {
        Self { realm: realm.to_owned(), group, is_new: false }
    }

    /// Takes over of which kind the valid realms are.
    pub fn complete(places: &mut [RealmPlace], realms: &[(Location, RealmConfig)]) {
        for place in places {
            let kind = realms.iter().find(|(_, realm)| realm.name.as_str() == place.realm);
            place.is_new = kind.is_some_and(|(_, realm)| realm.kind == RealmKind::New);
        }
    }
}
