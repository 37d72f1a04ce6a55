use super::*;

/// Sends `count` datagrams through a relay to something that echoes: what comes back.
async fn echoes(weather: Weather, cut: bool, count: u8) -> Vec<u8> {
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let relay = Relay::start(echo.local_addr().unwrap()).await.unwrap();
    relay.set_weather(weather);
    if cut {
        relay.set_cut(Cut::Everybody);
    }
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((bytes, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..bytes], from).await.unwrap();
        }
    });
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for i in 0..count {
        client.send_to(&[i], relay.address()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut heard = Vec::new();
    let mut buffer = [0; 16];
    let patience = Duration::from_millis(500);
    while let Ok(Ok(_)) = tokio::time::timeout(patience, client.recv(&mut buffer)).await {
        heard.push(buffer[0]);
    }
    heard
}

#[tokio::test]
async fn fair_weather_passes_everything() {
    let heard = echoes(Weather::default(), false, 50).await;
    assert_eq!(heard, (0..50).collect::<Vec<u8>>());
}

#[tokio::test]
async fn the_first_datagram_of_a_sender_is_not_lost() {
    for _ in 0..3 {
        assert_eq!(echoes(Weather::default(), false, 1).await, [0]);
    }
}

#[tokio::test]
async fn what_is_cut_does_not_come() {
    let nothing: [u8; 0] = [];
    assert_eq!(echoes(Weather::default(), true, 10).await, nothing);
}

#[tokio::test]
async fn what_is_delayed_by_the_same_time_comes_in_order() {
    let weather = Weather {
        delay: Duration::from_millis(2),
        ..Weather::default()
    };
    let heard = echoes(weather, false, 200).await;
    assert_eq!(heard, (0..200).collect::<Vec<u8>>());
}

#[tokio::test]
async fn who_is_far_away_is_so_both_ways() {
    let (target, relay, sender) = three().await;
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let distance = Duration::from_millis(40);
    relay.set_distance(sender.local_addr().unwrap(), distance);
    let start = Instant::now();
    sender.send(&[1]).await.unwrap();
    other.send_to(&[2], relay.address()).await.unwrap();
    // Whoever is near comes first, though it was sent later.
    assert_eq!(next(&target).await.unwrap().0, 2);
    let (one, from) = next(&target).await.unwrap();
    assert_eq!(one, 1);
    assert!(start.elapsed() >= distance);
    target.send_to(&[3], from).await.unwrap();
    assert_eq!(next(&sender).await.unwrap().0, 3);
    assert!(start.elapsed() >= 2 * distance);
}

#[tokio::test]
async fn it_loses_and_doubles_and_reorders() {
    let weather = Weather {
        loss: 0.3,
        duplication: 0.3,
        jitter: Duration::from_millis(20),
        ..Weather::default()
    };
    let heard = echoes(weather, false, 200).await;
    let different: BTreeSet<u8> = heard.iter().copied().collect();
    assert!(different.len() < 200, "nothing was lost");
    assert!(heard.len() > different.len(), "nothing came twice");
    assert!(!heard.is_sorted(), "nothing was reordered");
}

/// A target, a relay to it, a sender.
async fn three() -> (UdpSocket, Relay, UdpSocket) {
    let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let relay = Relay::start(target.local_addr().unwrap()).await.unwrap();
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    sender.connect(relay.address()).await.unwrap();
    (target, relay, sender)
}

/// The next datagram, and who sent it; None if none comes for a while.
async fn next(socket: &UdpSocket) -> Option<(u8, SocketAddr)> {
    let mut buffer = [0; 16];
    let coming = socket.recv_from(&mut buffer);
    let come = tokio::time::timeout(Duration::from_millis(500), coming).await;
    let (_, from) = come.ok()?.unwrap();
    Some((buffer[0], from))
}

#[tokio::test]
async fn a_cut_may_go_one_way_and_concern_one_sender() {
    let (target, relay, sender) = three().await;
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let one = Cut::Senders([sender.local_addr().unwrap()].into());
    relay.set_cut_back(one.clone());
    sender.send(&[1]).await.unwrap();
    let (_, from) = next(&target).await.unwrap();
    target.send_to(&[2], from).await.unwrap();
    assert_eq!(next(&sender).await, None);
    other.send_to(&[3], relay.address()).await.unwrap();
    let (_, from) = next(&target).await.unwrap();
    target.send_to(&[4], from).await.unwrap();
    assert_eq!(next(&other).await.unwrap().0, 4);

    relay.set_cut_back(Cut::Nobody);
    relay.set_cut_toward(one);
    sender.send(&[5]).await.unwrap();
    assert_eq!(next(&target).await, None);
    assert_eq!(relay.passed().cut, 2);
    assert_eq!(relay.passed().passed, 3);
}

#[tokio::test]
async fn whoever_is_rebound_comes_from_another_address_and_is_answered() {
    let (target, relay, sender) = three().await;
    sender.send(&[1]).await.unwrap();
    let (_, before) = next(&target).await.unwrap();
    relay.rebind();
    sender.send(&[2]).await.unwrap();
    let (_, after) = next(&target).await.unwrap();
    assert_ne!(before, after);
    target.send_to(&[3], after).await.unwrap();
    assert_eq!(next(&sender).await.unwrap().0, 3);
}
