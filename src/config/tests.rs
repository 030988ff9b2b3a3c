//! Defaults, files, variables and flags, and what is refused.

use super::*;

fn load(toml: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leveret.toml");
    std::fs::write(&file, toml).unwrap();
    Config::load(&Flags {
        config: Some(file),
        ..Flags::default()
    })
}

#[test]
fn a_file_overrides_defaults_and_flags_override_the_file() {
    let config = load("[amqp]\nlisten = \"127.0.0.1:1234\"\nheartbeat = 7").unwrap();
    assert_eq!(
        config.server.amqp_listen,
        Some(SocketAddr::from(([127, 0, 0, 1], 1234)))
    );
    assert_eq!(config.server.limits.heartbeat_s, 7);
    assert_eq!(config.server.limits.channel_max, 2047, "the default stays");
    let flags = Flags {
        amqp_listen: Some("none".to_owned()),
        ..Flags::default()
    };
    assert_eq!(Config::load(&flags).unwrap().server.amqp_listen, None);
}

#[test]
fn watermarks_are_shares_or_amounts() {
    let load = |toml: &str| load(toml).unwrap().server.alarms;
    let defaults = load("");
    assert_eq!(defaults.memory_high_watermark, Watermark::Relative(0.6));
    assert_eq!(defaults.disk_free_limit, Watermark::Bytes(1 << 30));
    let given = load("[alarms]\nvm_memory_high_watermark = \"3GB\"\ndisk_free_limit = 1.5");
    assert_eq!(given.memory_high_watermark, Watermark::Bytes(3_000_000_000));
    assert_eq!(given.disk_free_limit, Watermark::Relative(1.5));
    let given = load("[alarms]\ndisk_free_limit = 0");
    assert_eq!(given.disk_free_limit, Watermark::Bytes(0));
}

#[test]
fn a_bad_key_or_value_names_itself() {
    let cases = [
        ("[amqp]\nlisten = \"nowhere\"", "amqp.listen"),
        ("[amqp]\nframe_max = 100", "amqp.frame_max"),
        ("[amqp]\nheartbeat = \"often\"", "amqp.heartbeat"),
        ("[amqp]\nport = 5672", "port"),
        (
            "[alarms]\nvm_memory_high_watermark = \"much\"",
            "alarms.vm_memory_high_watermark",
        ),
        ("[alarms]\ndisk_free_limit = -1.5", "alarms.disk_free_limit"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[log]\nlevel = \"info,,=\"", "log.level"),
        ("colour = true", "colour"),
        ("[auth]\npassword_hashing = \"rot13\"", "auth.password_hashing"),
        ("[deprecated_features]\npermit = 1", "deprecated_features"),
    ];
    for (toml, name) in cases {
        let Err(error) = load(toml) else {
            panic!("{toml:?} was accepted")
        };
        assert!(error.to_string().contains(name), "{toml:?}: {error}");
    }
}
