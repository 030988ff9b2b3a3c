// The ceiling for 100 publishers with window 1: the same sockets and threads without a broker. 100 client threads send
// 1,100 bytes and wait for 21, the size of a publish and of a confirm; two server threads with epoll answer each read with one
// write. gcc -O2 -pthread -o target/pingpong benches/pingpong.c && target/pingpong
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 100, SERVERS = 2, PUBLISH = 1100, CONFIRM = 21, SECONDS = 3 };

static struct { _Alignas(64) volatile long trips; } done[CLIENTS];
static int accepted[CLIENTS];
static struct sockaddr_in address = {.sin_family = AF_INET};

static int no_delay(int socket) {
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return socket;
}

_Noreturn static void *serve(void *nth) {
    static char input[SERVERS][128 * 1024];
    char *bytes = input[(long)nth];
    int poll = epoll_create1(0);
    for (int i = (int)(long)nth; i < CLIENTS; i += SERVERS) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = accepted[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, accepted[i], &event);
    }
    for (;;) {
        struct epoll_event events[CLIENTS];
        int count = epoll_wait(poll, events, CLIENTS, -1);
        for (int i = 0; i < count; i++)
            if (recv(events[i].data.fd, bytes, sizeof input[0], 0) > 0)
                send(events[i].data.fd, bytes, CONFIRM, 0);
    }
}

_Noreturn static void *publish(void *nth) {
    int link = no_delay(socket(AF_INET, SOCK_STREAM, 0));
    char message[PUBLISH] = {0}, answer[64];
    if (connect(link, (struct sockaddr *)&address, sizeof address)) exit(1);
    for (;;) {
        if (send(link, message, PUBLISH, 0) != PUBLISH) exit(1);
        for (ssize_t got = 0; got < CONFIRM;) {
            ssize_t more = recv(link, answer, sizeof answer, 0);
            if (more <= 0) exit(1);
            got += more;
        }
        done[(long)nth].trips++;
    }
}

static long trips(void) {
    long sum = 0;
    for (int i = 0; i < CLIENTS; i++) sum += done[i].trips;
    return sum;
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, CLIENTS)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &len);
    pthread_t thread;
    for (long i = 0; i < CLIENTS; i++) {
        pthread_create(&thread, NULL, publish, (void *)i);
        accepted[i] = no_delay(accept(listener, NULL, NULL));
    }
    for (long i = 0; i < SERVERS; i++) pthread_create(&thread, NULL, serve, (void *)i);
    sleep(1);
    long before = trips();
    sleep(SECONDS);
    printf("%ld round trips/s\n", (trips() - before) / SECONDS);
    return 0;
}
