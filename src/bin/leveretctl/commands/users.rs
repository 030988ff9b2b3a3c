//! Users and their passwords.

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch},
    commands::not_empty,
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, CTL, OURS},
};

const GROUP: &str = "Users";

pub(super) static COMMANDS: [Spec; 9] = [
    Spec {
        name: "add_user",
        tools: CTL,
        group: GROUP,
        args: "<username> [<password>]",
        options: &[switch(
            "pre-hashed-password",
            "the password is a hash, as in definition files",
        )],
        about: "Creates a new user; without a password argument it is read from stdin",
        run: add,
    },
    Spec {
        name: "authenticate_user",
        tools: CTL,
        group: GROUP,
        args: "<username> [<password>]",
        options: &[],
        about: "Attempts to authenticate a user; exits with a non-zero code if it fails",
        run: authenticate,
    },
    Spec {
        name: "change_password",
        tools: CTL,
        group: GROUP,
        args: "<username> [<password>]",
        options: &[switch(
            "pre-hashed-password",
            "the password is a hash, as in definition files",
        )],
        about: "Changes the user password",
        run: change_password,
    },
    Spec {
        name: "clear_password",
        tools: CTL,
        group: GROUP,
        args: "<username>",
        options: &[],
        about: "Clears the password and disables password login for a user",
        run: clear_password,
    },
    Spec {
        name: "delete_user",
        tools: CTL,
        group: GROUP,
        args: "<username>",
        options: &[],
        about: "Deletes a user and closes its connections",
        run: delete,
    },
    Spec {
        name: "hash_password",
        tools: CTL,
        group: GROUP,
        args: "[<password>]",
        options: &[],
        about: "The salted hash of a password, for definition files; without an argument it is read from stdin",
        run: hash,
    },
    Spec {
        name: "list_users",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists user names and tags",
        run: list,
    },
    Spec {
        name: "set_user_tags",
        tools: CTL,
        group: GROUP,
        args: "<username> [<tag>...]",
        options: &[],
        about: "Sets user tags; none removes all",
        run: set_tags,
    },
    Spec {
        name: "whoami",
        tools: OURS,
        group: GROUP,
        args: "",
        options: &[],
        about: "Who the broker thinks you are",
        run: whoami,
    },
];

fn path(user: &str) -> String {
    format!("/users/{}", segment(user))
}

/// The user as the broker knows them.
fn find(call: &Call, user: &str) -> Result<Value, Failure> {
    call.client.get(&path(user)).map_err(|failure| {
        if failure.is_missing() {
            missing(user)
        } else {
            failure
        }
    })
}

pub(super) fn missing(user: &str) -> Failure {
    Failure::new(exit::NO_USER, format!("User \"{user}\" does not exist"))
}

/// The fields for a password that was given.
fn password(call: &Call) -> Result<(&'static str, String), Failure> {
    let secret = call.secret("password", "Password")?;
    Ok(if call.switch("pre-hashed-password") {
        ("password_hash", secret)
    } else {
        ("password", secret)
    })
}

fn add(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    not_empty("user", &user)?;
    let (key, secret) = password(call)?;
    call.banner(format!("Adding user \"{user}\" ..."));
    match call.client.get(&path(&user)) {
        Ok(_) => {
            let text = format!("User \"{user}\" already exists");
            return Err(Failure::new(exit::SOFTWARE, text));
        }
        Err(failure) if failure.is_missing() => {}
        Err(failure) => return Err(failure),
    }
    call.client.put(&path(&user), &json!({key: secret, "tags": []}))?;
    let mut fields = Map::new();
    fields.insert("status".to_owned(), "ok".into());
    fields.insert("node".to_owned(), call.node().into());
    let text = "Done. Don't forget to grant the user permissions to some virtual hosts! \
                See 'rabbitmqctl help set_permissions' to learn more.";
    Ok(Output::Remark(text.to_owned(), fields))
}

fn authenticate(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    not_empty("user", &user)?;
    let password = call.secret("password", "Password")?;
    call.banner(format!("Authenticating user \"{user}\" ..."));
    let body = json!({"user": user, "password": password});
    match call.client.post("/leveret/authenticate", &body) {
        Ok(_) => Ok(Output::sentence("Success")),
        Err(failure)
            if failure
                .reason
                .as_ref()
                .is_some_and(|refusal| refusal.status == 400) =>
        {
            let text =
                format!("Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials");
            Err(Failure::new(exit::DATA, text))
        }
        Err(failure) => Err(failure),
    }
}

/// Changes a user whose other properties stay as they are.
fn change(call: &mut Call, user: &str, fields: &[(&str, Value)]) -> Result<Output, Failure> {
    let known = find(call, user)?;
    let mut body = Map::new();
    for key in ["tags", "password_hash", "hashing_algorithm"] {
        body.insert(key.to_owned(), known.get(key).cloned().unwrap_or_default());
    }
    for (key, value) in fields {
        if key.starts_with("password") {
            body.remove("password_hash");
            body.remove("hashing_algorithm");
        }
        body.insert((*key).to_owned(), value.clone());
    }
    call.client.put(&path(user), &Value::Object(body))?;
    Ok(Output::Done { node: call.node() })
}

fn change_password(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    not_empty("user", &user)?;
    let (key, secret) = password(call)?;
    call.banner(format!("Changing password for user \"{user}\" ..."));
    change(call, &user, &[(key, secret.into())])
}

fn clear_password(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    call.banner(format!("Clearing password for user \"{user}\" ..."));
    change(call, &user, &[("password_hash", "".into())])
}

fn set_tags(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    let tags: Vec<String> = call.args("tag").into_iter().map(ToOwned::to_owned).collect();
    let listed = tags.join(", ");
    call.banner(format!("Setting tags for user \"{user}\" to [{listed}] ..."));
    change(call, &user, &[("tags", json!(tags))])
}

fn delete(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    call.banner(format!("Deleting user \"{user}\" ..."));
    let deleted = call.client.delete(&path(&user));
    deleted.map_err(|failure| {
        if failure.is_missing() {
            missing(&user)
        } else {
            failure
        }
    })?;
    Ok(Output::Done { node: call.node() })
}

fn hash(call: &mut Call) -> Result<Output, Failure> {
    let password = call.secret("password", "Password")?;
    let salt = rand::random::<[u8; 4]>();
    Ok(Output::sentence(salted(salt, &password)))
}

/// RabbitMQ's hash: the salt, then SHA-256 over salt and password.
fn salted(salt: [u8; 4], password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha2::{Digest, Sha256};

    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    STANDARD.encode([&salt, &*digest].concat())
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    call.banner("Listing users ...");
    let users = call.client.list("/users")?;
    let field = |user: &Value, key: &str| user.get(key).cloned().unwrap_or_default();
    let rows = users
        .iter()
        .map(|user| vec![field(user, "name"), field(user, "tags")]);
    Ok(Table::new(&["user", "tags"], rows.collect()).into())
}

fn whoami(call: &mut Call) -> Result<Output, Failure> {
    let json = call.client.get("/whoami")?;
    let text = json
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    Ok(Output::Report { text, json })
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_those_of_definition_files() {
        // From RabbitMQ's documentation of its password hashes: the salt 908DC60A and the password test12.
        assert_eq!(
            super::salted([0x90, 0x8D, 0xC6, 0x0A], "test12"),
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
        );
    }
}
