//! Which name an account gets. Pure; the rule: (realm, account id) has one name, and a name never passes
//! silently from one iTero account to another.

use super::outcome::LoginError;
use super::pending::PairingRequest;
use super::walls::Walls;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::store::AccountRecord;

/// Decides under which name a login's account is kept. `shown` is the platform's name for it, used only where
/// nothing better is known.
pub(super) fn decide(
    records: &[AccountRecord],
    walls: &Walls,
    request: &PairingRequest,
    id: AccountId,
    shown: &str,
) -> Result<AccountName, LoginError> {
    let held = holder(records, &request.realm, id);
    match (&request.name, held) {
        (Some(wanted), Some(held)) if *wanted != held.name => {
            Err(LoginError::KnownAs { realm: request.realm.clone(), id, name: held.name.clone() })
        }
        (_, Some(held)) => Ok(held.name.clone()),
        (Some(wanted), None) => match in_the_way(records, walls, wanted, &request.realm) {
            Some((realm, id)) => Err(LoginError::NameTaken { name: wanted.clone(), realm, id }),
            None => Ok(wanted.clone()),
        },
        (None, None) => Ok(free_name(records, id, shown)),
    }
}

/// The name for tokens that are already in hand when [`decide`] would refuse: they are kept under whatever
/// fits, never thrown away.
pub(super) fn fallback(
    records: &[AccountRecord],
    realm: &RealmName,
    id: AccountId,
    shown: &str,
) -> AccountName {
    match holder(records, realm, id) {
        Some(held) => held.name.clone(),
        None => free_name(records, id, shown),
    }
}

/// A name beside one that must not be touched.
pub(super) fn apart(name: &AccountName, id: AccountId) -> AccountName {
    let short: String = name.as_str().chars().take(LONGEST_SLUG).collect();
    format!("{short}-{id}").parse().unwrap_or_else(|_| name.clone())
}

pub(super) fn holder<'a>(
    records: &'a [AccountRecord],
    realm: &RealmName,
    id: AccountId,
) -> Option<&'a AccountRecord> {
    let is_it = |record: &&AccountRecord| {
        record.grants.iter().any(|grant| grant.realm == *realm && grant.account_id == id)
    };
    records.iter().find(is_it)
}

/// The vendor's id that a name stands for in a realm.
pub(super) fn id_of(records: &[AccountRecord], name: &AccountName, realm: &RealmName) -> Option<AccountId> {
    let record = records.iter().find(|record| record.name == *name)?;
    record.grants.iter().find(|grant| grant.realm == *realm).map(|grant| grant.account_id)
}

/// The account that keeps a name from standing for one of this realm: another of the realm, or one of another
/// group.
pub(super) fn in_the_way(
    records: &[AccountRecord],
    walls: &Walls,
    name: &AccountName,
    realm: &RealmName,
) -> Option<(RealmName, AccountId)> {
    if let Some(id) = id_of(records, name, realm) {
        return Some((realm.clone(), id));
    }
    let record = records.iter().find(|record| record.name == *name)?;
    walls.beyond(record, realm).map(|grant| (grant.realm.clone(), grant.account_id))
}

fn free_name(records: &[AccountRecord], id: AccountId, shown: &str) -> AccountName {
    let slug = slug(shown);
    let base = if slug.is_empty() { "account" } else { slug.as_str() };
    let is_free = |name: &AccountName| records.iter().all(|record| record.name != *name);
    let mut candidate = base.to_owned();
    for number in 1u64.. {
        // A slug of digits alone is no name, so it does not parse and gets its id appended.
        match candidate.parse::<AccountName>() {
            Ok(name) if is_free(&name) => return name,
            _ if number == 1 => candidate = format!("{base}-{id}"),
            _ => candidate = format!("{base}-{id}-{number}"),
        }
    }
    unreachable!("numbers end later than accounts")
}

/// Short enough that an id and a number fit behind it.
const LONGEST_SLUG: usize = 24;

fn slug(shown: &str) -> String {
    let mut slug = String::new();
    for letter in shown.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '0'..='9' => slug.push(letter),
            'ä' | 'æ' => slug.push_str("ae"),
            'ö' | 'œ' => slug.push_str("oe"),
            'ü' => slug.push_str("ue"),
            'ß' => slug.push_str("ss"),
            'à' | 'á' | 'â' | 'ã' | 'å' => slug.push('a'),
            'è' | 'é' | 'ê' | 'ë' => slug.push('e'),
            'ì' | 'í' | 'î' | 'ï' => slug.push('i'),
            'ò' | 'ó' | 'ô' | 'õ' | 'ø' => slug.push('o'),
            'ù' | 'ú' | 'û' => slug.push('u'),
            'ç' => slug.push('c'),
            'ñ' => slug.push('n'),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
        if slug.len() >= LONGEST_SLUG {
            break;
        }
    }
    slug.truncate(LONGEST_SLUG);
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::account::AccountState;
    use crate::model::token::RefreshToken;
    use crate::store::GrantRecord;

    fn record(name: &str, realm: &str, id: u64) -> AccountRecord {
        let realm: RealmName = realm.parse().unwrap();
        let grant = GrantRecord {
            realm: realm.clone(),
            account_id: AccountId::new(id),
            refresh: RefreshToken::new("r"),
            access: None,
            generation: 1,
            refreshed_at: None,
            obtained_at: Timestamp::default(),
            route: None,
            intent: None,
        };
        AccountRecord {
            name: name.parse().unwrap(),
            current: realm,
            state: AccountState::Ready,
            is_test: false,
            version: None,
            moving_to: None,
            grants: vec![grant],
        }
    }

    fn request(name: Option<&str>) -> PairingRequest {
        PairingRequest {
            application: None,
            realm: "global".parse().unwrap(),
            name: name.map(|name| name.parse().unwrap()),
            account_id: None,
            callback_url: None,
        }
    }

    #[test]
    fn an_account_without_a_wanted_name_is_named_after_itself() {
        let records = [record("smile", "global", 1), record("smile-7", "china", 7)];
        for (shown, name) in [
            ("Praxis Dr. Müller & Söhne", "praxis-dr-mueller-soehne"),
            ("  Zahn--Labor  ", "zahn-labor"),
            ("Smile", "smile-7-2"),
            ("12345", "12345-7"),
            ("微笑", "account"),
            ("", "account"),
            ("A very long name of a clinic in a small town", "a-very-long-name-of-a-cl"),
        ] {
            let decided = decide(&records, &Walls::default(), &request(None), AccountId::new(7), shown);
            assert_eq!(decided.unwrap().as_str(), name, "{shown:?}");
        }
    }

    #[test]
    fn a_known_account_keeps_its_name_and_refuses_another() {
        let records = [record("smile", "global", 1)];
        let id = AccountId::new(1);
        assert_eq!(
            decide(&records, &Walls::default(), &request(None), id, "New Name").unwrap().as_str(),
            "smile"
        );
        assert_eq!(
            decide(&records, &Walls::default(), &request(Some("smile")), id, "x").unwrap().as_str(),
            "smile"
        );
        let refused = decide(&records, &Walls::default(), &request(Some("grin")), id, "x");
        assert!(matches!(refused, Err(LoginError::KnownAs { name, .. }) if name.as_str() == "smile"));
    }

    #[test]
    fn a_name_never_passes_to_another_account_of_its_realm_but_takes_a_grant_of_a_second_realm() {
        let id = AccountId::new(2);
        let refused =
            decide(&[record("smile", "global", 1)], &Walls::default(), &request(Some("smile")), id, "x");
        assert!(matches!(refused, Err(LoginError::NameTaken { id, .. }) if id == AccountId::new(1)));
        let second =
            decide(&[record("smile", "old", 1)], &Walls::default(), &request(Some("smile")), id, "x");
        assert_eq!(second.unwrap().as_str(), "smile");
    }
}
