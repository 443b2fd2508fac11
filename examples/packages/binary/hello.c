/* A web server in one static program: cc -static -O2 -o hello hello.c; ./hello ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listening(const char *address, const char *port)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int server = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (inet_pton(AF_INET, address, &place.sin_addr) != 1)
        return -1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&place, sizeof place) < 0 || listen(server, 50) < 0)
        return -1;
    return server;
}

static void answer(int peer)
{
    static const char text[] = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nHello from a static program\n";
    char request[4096];
    if (read(peer, request, sizeof request) > 0 && write(peer, text, strlen(text)) > 0)
        puts("answered");
    close(peer);
}

int main(int count, char **words)
{
    int server = count == 3 ? listening(words[1], words[2]) : -1;
    if (server < 0) {
        perror("hello ADDRESS PORT");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (;;)
        answer(accept(server, NULL, NULL));
}
