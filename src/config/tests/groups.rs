//! Groups keep realms and callers apart: whatever would lead from one into another is refused, with both
//! sides named.

use super::super::*;
use super::{ConfigFolder, second_realm};

/// China beside the rest, each with credentials and hosts of its own, and a caller of each.
fn apart() -> String {
    let text = second_realm(
        "\n[[callers]]\nname = \"cn-sync\"\ngroup = \"china\"\naccounts = [\"*\"]\nnetworks = [\"10.9.0.0/16\"]",
    );
    let (rest, china) = text.split_once("[realms.china]").unwrap();
    let china = china
        .replace("iterocloud.com", "itero.example.cn")
        .replacen("client_id = \"id\"", "client_id = \"cn-id\"", 1)
        .replacen("{ env = \"ITERO_CLIENT_SECRET\" }", "{ file = \"china.secret\" }", 1);
    format!("{rest}[realms.china]\ngroup = \"china\"\n{}", china.trim_start())
}

fn folder() -> ConfigFolder {
    let folder = ConfigFolder::new();
    folder.write("china.secret", "another-secret-4712");
    folder
}

#[test]
fn china_beside_the_rest_starts_and_each_caller_is_of_its_group() {
    let config = folder().load(&apart()).unwrap_or_else(|problems| panic!("{problems}")).config;
    let china = "china".parse().ok();
    assert_eq!((&config.realms["global"].group, &config.realms["china"].group), (&None, &china));
    let reach: Vec<&Reach> = config.callers.iter().map(|caller| &caller.reach).collect();
    assert_eq!(reach, [&Reach::Group(None), &Reach::Group(china)]);
}

#[test]
fn whatever_would_lead_from_one_group_into_another_is_refused_with_both_sides_named() {
    let folder = folder();
    let edited = |old: &str, new: &str| {
        assert!(apart().contains(old), "{old}");
        apart().replacen(old, new, 1)
    };
    #[rustfmt::skip]
    let table = [
        (edited("client_id = \"cn-id\"", "client_id = \"id\""), "realms.china", "client_id of realm global"),
        (edited("{ file = \"china.secret\" }", "{ env = \"ITERO_CLIENT_SECRET\" }"), "realms.china", "client_secret of realm global"),
        (edited("[\"*.itero.example.cn\"]", "[\"*.itero.example.cn\", \"cn.iterocloud.com\"]"), "realms.china", "reaches cn.iterocloud.com, and realm global reaches *.iterocloud.com"),
        (edited("[\"*.iterocloud.com\"]", "[\"*.iterocloud.com\", \"*.example.cn\"]"), "realms.china", "realm global reaches *.example.cn"),
        (edited("group = \"china\"\noauth_base", "group = \"china\"\nlink_hosts = [\"*.cdn.iterocloud.com\"]\noauth_base"), "realms.china", "reaches *.cdn.iterocloud.com"),
        (edited("https://prod-iteroapi.itero.example.cn", "https://prod-iteroapi.iterocloud.com"), "realms.china", "reaches prod-iteroapi.iterocloud.com"),
        (edited("accounts = [\"smile-*\"]", "accounts = [\"china:12\"]"), "callers[0].accounts[0]", "\"china\" is of group china, and this caller of the default group"),
        (edited("accounts = [\"*\"]", "accounts = [\"global:12\"]"), "callers[1].accounts[0]", "\"global\" is of the default group, and this caller of group china"),
        (edited("networks = [\"10.9.0.0/16\"]", "facade = { client_id = \"a\", client_secret_sha256 = \"00000000000000000000000000000000000000000000000000000000000000aa\", realm = \"global\" }"), "callers[1].facade.realm", "\"global\" is of the default group"),
        (edited("group = \"china\"\naccounts", "group = \"chnia\"\naccounts"), "callers[1].group", "is of group chnia, and no realm is"),
        (edited("group = \"china\"\naccounts", "group = \"default\"\naccounts"), "callers[1].group", "the word for having no group"),
        (edited("group = \"china\"\naccounts", "group = \"China\"\naccounts"), "callers[1].group", "lower-case"),
    ];
    for (text, key, what) in table {
        let problems = folder.problems(&text);
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        assert_eq!(problems[0].key, key, "{}", problems[0]);
        assert!(problems[0].what.contains(what) && !problems[0].fix.is_empty(), "{}", problems[0]);
    }
}

#[test]
fn a_caller_without_a_group_reaches_nothing_where_every_realm_has_one() {
    let text = apart().replacen("[realms.global]", "[realms.global]\ngroup = \"west\"", 1);
    let problems = folder().problems(&text);
    let fixes: Vec<_> = problems.iter().map(|problem| (&*problem.key, &*problem.fix)).collect();
    let fix = "write the group of the realms that it calls: group = \"china\", or group = \"west\"";
    assert_eq!(fixes, [("callers[0].group", fix)]);
}

#[test]
fn logins_of_an_application_are_in_a_realm_of_its_group() {
    let facade = "facade = { client_id = \"a\", client_secret_sha256 = \"00000000000000000000000000000000000000000000000000000000000000aa\", redirect_uris = [\"http://127.0.0.1:5000/cb\"] }";
    let loaded = folder().load(&apart().replacen("networks = [\"10.9.0.0/16\"]", facade, 1)).unwrap();
    let login = loaded.config.callers[1].facade.as_ref().unwrap().realm.clone().unwrap();
    assert_eq!(login.as_str(), "china");
    assert!(
        loaded.warnings.iter().all(|warning| !warning.key.ends_with("facade.realm")),
        "{:?}",
        loaded.warnings
    );
}
