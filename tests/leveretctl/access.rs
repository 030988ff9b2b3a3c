//! Users, vhosts, permissions.

use crate::{broker::Broker, script::check};

#[test]
fn users_come_change_and_go() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ list_users
        Listing users ...
        user	tags
        guest	[administrator]
        $ list_users -q --formatter json
        [
        {"user":"guest","tags":["administrator"]}
        ]
        $ list_users --formatter csv
        "user","tags"
        "guest","[administrator]"
        $ list_users -s
        guest	[administrator]
        $ add_user alice secret
        Adding user "alice" ...
        Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more.
        $ add_user alice secret
        Adding user "alice" ...
        ! 70
        > Error:
        > User "alice" already exists
        $ -q add_user bob secret
        $ add_user carl secret --formatter json
        {"message":"Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more.","node":"NODE","status":"ok"}
        $ add_user '' x
        ! 65
        > Error (argument validation): Bad argument: user cannot be an empty string
        > Arguments given:
        > 	add_user  x
        >
        > Usage
        >
        > rabbitmqctl [--node <node>] [--longnames] [--quiet] add_user <username> [<password>] [--pre-hashed-password]
        $ set_user_tags alice monitoring management
        Setting tags for user "alice" to [monitoring, management] ...
        $ authenticate_user alice secret
        Authenticating user "alice" ...
        Success
        $ set_user_tags nobody x
        Setting tags for user "nobody" to [x] ...
        ! 67
        > Error:
        > User "nobody" does not exist
        $ change_password alice other
        Changing password for user "alice" ...
        $ change_password nobody other
        Changing password for user "nobody" ...
        ! 67
        > Error:
        > User "nobody" does not exist
        $ authenticate_user alice secret
        Authenticating user "alice" ...
        ! 65
        > Error:
        > Error: failed to authenticate user "alice"
        > user 'alice' - invalid credentials
        $ authenticate_user alice other
        Authenticating user "alice" ...
        Success
        $ list_users -s
        alice	[monitoring, management]
        bob	[]
        carl	[]
        guest	[administrator]
        $ clear_password bob
        Clearing password for user "bob" ...
        $ delete_user carl
        Deleting user "carl" ...
        $ delete_user carl
        Deleting user "carl" ...
        ! 67
        > Error:
        > User "carl" does not exist
        $ delete_user bob --formatter json
        {"node":"NODE","result":"ok"}
        "#,
    );
}

#[test]
fn passwords_come_from_stdin_and_as_hashes() {
    let broker = Broker::start();
    let added = broker.run_with("rabbitmqctl", &["-q", "add_user", "alice"], "from a pipe\n");
    assert_eq!(added.code, 0, "{added:?}");
    let known = broker.run_with(
        "rabbitmqctl",
        &["-q", "authenticate_user", "alice"],
        "from a pipe\n",
    );
    assert_eq!((known.code, known.out.as_str()), (0, "Success\n"));
    let empty = broker.run_with("rabbitmqctl", &["-q", "add_user", "bob"], "");
    assert_eq!(empty.code, 64, "{empty:?}");
    let hash = broker.quiet("hash_password secret");
    let added = broker.ctl(&format!("add_user bob {} --pre-hashed-password", hash.trim()));
    assert_eq!(added.code, 0, "{added:?}");
    assert_eq!(broker.quiet("authenticate_user bob secret"), "Success\n");
}

#[test]
fn vhosts_and_permissions() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ add_vhost v1
        Adding vhost "v1" ...
        $ add_vhost v1
        Adding vhost "v1" ...
        $ add_vhost v2 --description 'a b' --tags x,y
        Adding vhost "v2" ...
        $ list_vhosts
        Listing vhosts ...
        name
        /
        v1
        v2
        $ list_vhosts name description tags cluster_state -s
        /		[]	[{'NODE', running}]
        v1		[]	[{'NODE', running}]
        v2	a b	[x, y]	[{'NODE', running}]
        $ list_vhosts name tracing --formatter json
        [
        {"name":"/","tracing":false}
        ,{"name":"v1","tracing":false}
        ,{"name":"v2","tracing":false}
        ]
        $ list_vhosts colour
        ! 64
        > Error (argument validation): Info key(s) colour are not supported
        > Arguments given:
        > 	list_vhosts colour
        >
        > Usage
        >
        > rabbitmqctl [--node <node>] [--longnames] [--quiet] list_vhosts [<column>...]
        $ enable_vhost_deletion_protection v2
        Enabling deletion protection for virtual host "v2" ...
        $ -q delete_vhost v2
        ! 65
        > Error:
        > Cannot delete ...
        $ -q disable_vhost_deletion_protection v2
        $ delete_vhost v2
        Deleting vhost "v2" ...
        $ delete_vhost v2
        Deleting vhost "v2" ...
        ! 65
        > Virtual host 'v2' does not exist
        $ -q update_vhost_metadata v1 --description new
        $ -q list_vhosts name description --no-table-headers
        /	
        v1	new
        $ trace_on -p v1
        Starting tracing for vhost "v1" ...
        Trace enabled for vhost v1
        $ -q trace_off -p v1
        $ restart_vhost
        Trying to restart vhost '/' on node 'NODE' ...
        Vhost '/' is already running on node 'NODE'
        $ -q add_user alice secret
        $ set_permissions -p v1 alice .* ^a ''
        Setting permissions for user "alice" in vhost "v1" ...
        $ set_permissions -p nothere alice .* '' ''
        Setting permissions for user "alice" in vhost "nothere" ...
        ! 69
        > Error:
        > Virtual host nothere does not exist
        $ set_permissions -p v1 nobody .* '' ''
        Setting permissions for user "nobody" in vhost "v1" ...
        ! 67
        > Error:
        > User nobody does not exist
        $ -q set_permissions -p v1 alice [ '' ''
        ! 69
        > Error:
        > ...
        $ list_permissions -p v1
        Listing permissions for vhost "v1" ...
        user	configure	write	read
        alice	.*	^a	
        $ list_permissions -p v1 --formatter json
        [
        {"user":"alice","configure":".*","write":"^a","read":""}
        ]
        $ list_permissions -p nothere
        Listing permissions for vhost "nothere" ...
        ! 65
        > Virtual host 'nothere' does not exist
        $ list_user_permissions alice
        Listing permissions for user "alice" ...
        vhost	configure	write	read
        v1	.*	^a	
        $ set_topic_permissions -p v1 alice amq.topic ^w ^r
        Setting topic permissions on "amq.topic" for user "alice" in vhost "v1" ...
        $ list_topic_permissions -p v1
        Listing topic permissions for vhost "v1" ...
        user	exchange	write	read
        alice	amq.topic	^w	^r
        $ -q list_user_topic_permissions alice --formatter json
        [
        {"vhost":"v1","exchange":"amq.topic","write":"^w","read":"^r"}
        ]
        $ clear_topic_permissions -p v1 alice amq.topic
        Clearing topic permissions on "amq.topic" for user "alice" in vhost "v1" ...
        $ clear_topic_permissions -p v1 alice
        Clearing topic permissions for user "alice" in vhost "v1" ...
        $ clear_permissions -p v1 alice
        Clearing permissions for user "alice" in vhost "v1" ...
        $ clear_permissions nobody
        Clearing permissions for user "nobody" in vhost "/" ...
        ! 67
        > Error:
        > User nobody does not exist
        $ -q set_permissions_globally alice a b c
        $ -q list_user_permissions alice
        vhost	configure	write	read
        /	a	b	c
        v1	a	b	c
        "#,
    );
}

#[test]
fn names_with_spaces_and_markup_are_names() {
    let broker = Broker::start();
    for name in ["a b", "<b>", "%2f/..", "ü\u{1f407}", "--", "a\tb", "q?x=1#y"] {
        let made = broker.run("rabbitmqctl", &["-q", "add_vhost", "--", name]);
        assert_eq!(made.code, 0, "{name}: {made:?}");
        let listed = broker.quiet("list_vhosts --formatter json");
        let rows: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let found = rows.as_array().unwrap().iter().any(|row| row["name"] == name);
        assert!(found, "{name}: {listed}");
        let gone = broker.run("rabbitmqctl", &["-q", "delete_vhost", "--", name]);
        assert_eq!(gone.code, 0, "{name}: {gone:?}");
    }
    assert_eq!(broker.quiet("list_vhosts -s"), "/\n");
}
