//! What each tag opens, route by route; permissions are another matter.

use crate::client::Broker;

/// Who has no tag, and the four tags.
const ROLES: [&str; 5] = ["", "management", "policymaker", "monitoring", "administrator"];

/// Method, path, body, and which of the roles may.
const ROUTES: [(&str, &str, &str, [bool; 5]); 10] = [
    ("GET", "/overview", "", [false, true, true, true, true]),
    ("GET", "/queues/%2F", "", [false, true, true, true, true]),
    ("PUT", "/queues/%2F/q", "{}", [false, true, true, true, true]),
    ("GET", "/nodes", "", [false, false, false, true, true]),
    (
        "PUT",
        "/policies/%2F/p",
        r#"{"pattern":"^x","definition":{"max-length":1}}"#,
        [false, false, true, false, true],
    ),
    (
        "DELETE",
        "/policies/%2F/none",
        "",
        [false, false, true, false, true],
    ),
    ("GET", "/users", "", [false, false, false, false, true]),
    (
        "PUT",
        "/users/new",
        r#"{"password":"s","tags":"administrator"}"#,
        [false, false, false, false, true],
    ),
    ("PUT", "/vhosts/new", "{}", [false, false, false, false, true]),
    (
        "PUT",
        "/permissions/%2F/guest",
        r#"{"configure":".*","write":".*","read":".*"}"#,
        [false, false, false, false, true],
    ),
];

/// Proves: H58
#[tokio::test(flavor = "multi_thread")]
async fn each_route_wants_its_tag() {
    let broker = Broker::start().await;
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    for role in ROLES {
        let user = format!("{{\"password\":\"s\",\"tags\":\"{role}\"}}");
        broker.expect(201, "PUT", &format!("/users/u{role}"), &user).await;
        broker
            .expect(201, "PUT", &format!("/permissions/%2F/u{role}"), all)
            .await;
    }
    for (method, path, body, allowed) in ROUTES {
        for (role, allowed) in ROLES.into_iter().zip(allowed) {
            let login = format!("u{role}:s");
            let status = broker.call_as(Some(&login), method, path, body).await.status;
            assert_eq!(status != 401, allowed, "{method} {path} as '{role}': {status}");
        }
    }
    // Who is not known may nothing. An address has ten failures a minute.
    for login in ["nobody:s", "guest:wrong"] {
        let status = broker.call_as(Some(login), "GET", "/overview", "").await.status;
        assert_eq!(status, 401, "{login}");
    }
}
