//! What is an address, what is not, and what the error says.

use super::*;

fn problem(text: &str) -> String {
    let error = text.parse::<HostPort>().expect_err(text);
    assert_eq!(error.got, text);
    error.problem
}

#[test]
fn an_address_has_one_spelling() {
    for (text, spelling) in [
        ("one:7401", "one:7401"),
        ("One.Example.:07401", "one.example.:7401"),
        ("replica_1:1", "replica_1:1"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
        ("[::1]:7401", "[::1]:7401"),
        ("[2001:DB8:0::1]:7401", "[2001:db8::1]:7401"),
        ("[::ffff:192.0.2.1]:7401", "192.0.2.1:7401"),
    ] {
        let address: HostPort = text.parse().expect(text);
        assert_eq!(address.to_string(), spelling);
        assert_eq!(spelling.parse::<HostPort>().as_ref(), Ok(&address));
        assert_eq!(Address::from(address).as_str(), spelling);
    }
}

#[test]
fn a_text_that_is_no_address_is_refused_with_what_to_do() {
    for (text, says) in [
        ("http://one:7401", "leave out \"http://\""),
        ("quic://[::1]:7401", "leave out \"quic://\""),
        ("one:7401/", "leave out \"/\""),
        ("me@one:7401", "the @"),
        ("one", "add the port, like one:7401"),
        ("192.0.2.1", "add the port"),
        ("[::1]", "add the port, like [::1]:7401"),
        ("one:", "from 1 to 65535"),
        ("one:http", "from 1 to 65535"),
        ("one:+7401", "from 1 to 65535"),
        ("one:65536", "from 1 to 65535"),
        ("one:0", "port 0 cannot be dialed"),
        ("[::1]:0", "port 0 cannot be dialed"),
        ("::1", "brackets and a port, like [::1]:7401"),
        ("::1:7401", "brackets"),
        ("2001:db8:0:0:0:0:0:1:7401", "brackets"),
        ("[::1:7401", "a ] is missing"),
        ("[one]:7401", "not an IPv6 address"),
        ("[fe80::1%eth0]:7401", "leave out the zone %eth0"),
        (":7401", "the host is missing"),
        ("", "add the port"),
        ("one two:7401", "not ' '"),
        ("bücher.example:7401", "not 'ü'"),
        ("one..example:7401", "between the dots"),
        ("192.0.2:7401", "four numbers"),
        ("192.0.2.256:7401", "four numbers"),
        ("0.0.0.0:7401", "the address of no machine"),
        ("[::]:7401", "the address of no machine"),
        ("[ff02::1]:7401", "the address of no machine"),
        ("255.255.255.255:7401", "the address of no machine"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(says), "{text}: {problem}");
    }
    assert!(problem(&format!("{}:1", "x".repeat(64))).contains("63"));
    assert!(problem(&format!("{}x:1", "x.".repeat(130))).contains("255"));
    let error = "one".parse::<HostPort>().unwrap_err().to_string();
    assert!(error.starts_with("expected HOST:PORT, like"), "{error}");
}

#[test]
fn a_replica_listens_where_its_address_leads() {
    for (text, listen) in [
        ("127.0.0.1:7401", "127.0.0.1:7401"),
        ("[::1]:7402", "[::1]:7402"),
        ("192.0.2.1:7401", "0.0.0.0:7401"),
        ("[2001:db8::1]:7401", "[::]:7401"),
        ("one.example:7401", "[::]:7401"),
    ] {
        let address: HostPort = text.parse().expect(text);
        assert_eq!(address.listen().to_string(), listen, "{text}");
    }
}

#[test]
fn an_address_to_listen_on_is_of_this_machine() {
    for right in ["0.0.0.0:7401", "[::]:7401", "127.0.0.1:9401"] {
        assert_eq!(read_listen(right).unwrap().to_string(), right);
    }
    for (text, says) in [
        ("0.0.0.0:0", "port 0"),
        ("http://127.0.0.1:9401", "leave out \"http://\""),
        ("::1:7401", "brackets"),
        ("127.0.0.1", "add the port"),
        ("localhost:7401", "a name is no address of this machine"),
    ] {
        let problem = read_listen(text).expect_err(text);
        assert!(problem.contains(says), "{text}: {problem}");
    }
}

#[test]
fn two_replicas_have_two_addresses() {
    let members = |addresses: [&str; 3]| {
        let members = (1..).zip(addresses).map(|(id, address)| Member {
            id: ReplicaId(id),
            address: address.parse().expect(address),
        });
        members.collect::<Vec<Member>>()
    };
    let different = members(["one:7401", "one:7402", "two:7401"]);
    assert_eq!(check_distinct(&different), Ok(()));
    for same in ["one:7401", "ONE:7401", "one:07401"] {
        let error = check_distinct(&members(["one:7401", "two:7401", same])).unwrap_err();
        assert_eq!((error.first, error.second), (ReplicaId(1), ReplicaId(3)));
        assert!(error.to_string().contains("one:7401"), "{error}");
    }
}
