//! Policies, parameters, limits.

use crate::{broker::Broker, script::check};

#[test]
fn policies_and_operator_policies() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ set_policy p1 ^q '{"max-length":10}' --priority 2 --apply-to queues
        Setting policy "p1" for pattern "^q" to "{"max-length":10}" with priority "2" for vhost "/" ...
        $ set_policy p2 ^q '{"max-length":'
        Setting policy "p2" for pattern "^q" to "{"max-length":" with priority "0" for vhost "/" ...
        ! 69
        > Error:
        > JSON decoding error. ...
        $ -q set_policy p3 ^q '{"colour":1}'
        ! 69
        > Error:
        > Validation failed
        >
        > ...
        $ -q set_policy -p nothere a b '{"max-length":1}'
        ! 65
        > Virtual host 'nothere' does not exist
        $ list_policies
        Listing policies for vhost "/" ...
        vhost	name	pattern	apply-to	definition	priority
        /	p1	^q	queues	{"max-length":10}	2
        $ list_policies --formatter json
        [
        {"vhost":"/","name":"p1","pattern":"^q","apply-to":"queues","definition":"{\"max-length\":10}","priority":2}
        ]
        $ list_policies -p nothere
        Listing policies for vhost "nothere" ...
        ! 65
        > Virtual host 'nothere' does not exist
        $ clear_policy p1
        Clearing policy "p1" on vhost "/" ...
        $ clear_policy p1
        Clearing policy "p1" on vhost "/" ...
        ! 69
        > Error:
        > Parameter does not exist
        $ -q list_policies

        $ list_policies --formatter json
        []
        $ set_operator_policy op1 ^q '{"max-length":10}'
        Setting operator policy override "op1" for pattern "^q" to "{"max-length":10}" with priority "0" for vhost "/" ...
        $ list_operator_policies
        Listing operator policy overrides for vhost "/" ...
        vhost	name	pattern	apply-to	definition	priority
        /	op1	^q	all	{"max-length":10}	0
        $ clear_operator_policy op1
        Clearing operator policy "op1" on vhost "/" ...
        "#,
    );
}

#[test]
fn parameters() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ -q set_parameter federation f1 '{}'
        ! 69
        > Error:
        > Validation failed
        >
        > ...
        $ list_parameters
        Listing runtime parameters for vhost "/" ...

        $ list_parameters --formatter json
        []
        $ set_global_parameter g1 '{"a":1}'
        Setting global runtime parameter "g1" to "{"a":1}" ...
        $ -q set_global_parameter g2 '{'
        ! 69
        > Error:
        > JSON decoding error. ...
        $ clear_parameter federation f1
        Clearing runtime parameter "f1" for component "federation" on vhost "/" ...
        ! 69
        > Error:
        > Parameter does not exist
        "#,
    );
    let listed = broker.quiet("list_global_parameters");
    assert!(listed.starts_with("name\tvalue\n"), "{listed}");
    assert!(listed.contains("\ng1\t{\"a\":1}\n"), "{listed}");
    assert!(
        listed.contains("\ninternal_cluster_id\t\"rabbitmq-cluster-id-"),
        "{listed}"
    );
    check(
        &broker,
        "
        $ clear_global_parameter g1
        Clearing global runtime parameter \"g1\" ...
        $ clear_global_parameter g1
        Clearing global runtime parameter \"g1\" ...
        ! 69
        > Error:
        > Parameter does not exist
        ",
    );
}

#[test]
fn limits_of_vhosts_and_users() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ -q add_vhost v1
        $ -q add_user alice x
        $ set_vhost_limits -p v1 '{"max-connections":5}'
        Setting vhost limits to "{"max-connections":5}" for vhost "v1" ...
        $ -q set_vhost_limits '{"max-colours":1}'
        ! 69
        > Error:
        > Validation failed
        >
        > Unrecognised terms ...
        $ -q set_vhost_limits -p nothere '{"max-connections":1}'
        ! 65
        > Virtual host 'nothere' does not exist
        $ list_vhost_limits
        Listing limits for vhost "/" ...

        $ list_vhost_limits -p v1
        Listing limits for vhost "v1" ...
        {"max-connections":5}
        $ list_vhost_limits --global
        Listing limits for all vhosts ...
        vhost	limits
        v1	{"max-connections":5}
        $ list_vhost_limits --formatter json
        []
        $ clear_vhost_limits -p v1
        Clearing vhost "v1" limits ...
        $ -q clear_vhost_limits -p nothere
        ! 69
        > Error:
        > Parameter does not exist
        $ set_user_limits alice '{"max-connections":5}'
        Setting user limits to "{"max-connections":5}" for user "alice" ...
        $ list_user_limits --user alice
        Listing limits for user "alice" ...
        {"max-connections":5}
        $ list_user_limits --user alice --formatter json
        {"message":"{\"max-connections\":5}"}
        $ list_user_limits --global
        Listing limits for all users ...
        user	limits
        alice	{"max-connections":5}
        $ clear_user_limits alice max-connections
        Clearing "max-connections" limit for user "alice" ...
        $ clear_user_limits alice all
        Clearing all limits for user "alice" ...
        $ -q list_user_limits --global
        |
        "#,
    );
}
