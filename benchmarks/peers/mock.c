// An OpenAI-compatible upstream that costs next to nothing: one thread, epoll, answers made once.
//
//     mock PORT
//
// POST anything        the JSON answer, or where the body says "stream": true one event stream
// GET /__set?…         events=N of a stream, delay_us=U before each event (and before a JSON answer),
//                      fault=P share of POSTs that go wrong; starts the fault generator anew
// GET /__stats         posts; reached: how many different ids they had; faults
// GET anything else    what routers ask for to learn of health and models
//
// With no delay, streams take turns, one event and one send() each; with a delay each has its own clock.
// A body with "soak-DDDDDDDD" in it has that number for its id, and a planted fault is told on standard
// output as "ID KIND" (a stream's as "ID stream-KIND"), so that whoever counts failures can tell which were ours.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 8192, INPUT = 256 * 1024, IDS = 100000000, NONE = -1 };
enum state { READING, JSON, STREAM };  // what the connection waits for
enum fault { WELL, RESET, STATUS_500, CUT, BROKEN };
static const char *FAULTS[] = {"well", "reset", "status-500", "cut", "broken"};

typedef struct {
  int fd;
  bool open, queued, blocked;
  enum state state;
  enum fault fault;
  char *in, *out;
  int in_len, out_len, out_from, out_room;
  int sent, events;      // of a stream
  long long due;         // us: when the next event, or the answer, is to go out
  int next;              // in the queue
} Connection;

static Connection connections[CONNECTIONS];
static int poller, first = NONE, last = NONE;
static int events = 200;
static long delay_us;
static double fault_share;
static uint32_t seed;
static long long posts, reached, faults;
static unsigned char seen[IDS / 8];

static char answer[8192], failure[512], stream_head[2048], event_first[1024], event[2][1024], event_stop[1024];
static char event_usage[2048];
static int answer_len, failure_len, stream_head_len, event_first_len, event_len, event_stop_len, event_usage_len;

static const char *HEADERS =
    "date: Sun, 22 Nov 2026 15:00:00 GMT\r\nopenai-organization: bench-org\r\nopenai-processing-ms: 12\r\n"
    "openai-version: 2020-10-01\r\nx-request-id: req_0123456789abcdef0123456789abcdef\r\n"
    "x-ratelimit-limit-requests: 30000\r\nx-ratelimit-remaining-requests: 29999\r\n"
    "x-ratelimit-limit-tokens: 150000000\r\nx-ratelimit-remaining-tokens: 149999800\r\n";
static const char *COMPLETION =
    "{\"id\":\"chatcmpl-BkT0aYh2Jm3pQvX9sLw4RnZcE7uDf\",\"object\":\"chat.completion\",\"created\":1763823600,"
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"A gateway sits between clients and model providers. It authenticates each caller, applies limits, chooses "
    "a backend, forwards the request, and records the tokens used so that cost can be attributed. Because every "
    "request crosses it, its own overhead should be small compared with the time a model takes to answer, and it "
    "should keep working when one provider is slow or unavailable. In practice the largest costs are parsing, "
    "copying and logging.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":187,\"completion_tokens\":84,\"total_tokens\":271,\"prompt_tokens_details\":"
    "{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"
    "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_560af6e559\"}\n";
static const char *FAILURE = "{\"error\":{\"message\":\"The server had an error.\",\"type\":\"server_error\"}}";
#define EVENT                                                                                                 \
  "data: {\"id\":\"chatcmpl-BkT0aYh2Jm3pQvX9sLw4RnZcE7uDf\",\"object\":\"chat.completion.chunk\",\"created\":"  \
  "1763823600,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":"        \
  "\"fp_560af6e559\","

static long long now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static uint32_t random32(void) {  // xorshift: the same faults in each run
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed;
}

// The answers.

static int http(char *to, const char *status, const char *headers, const char *body) {
  return sprintf(to, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s\r\n%s", status,
                 strlen(body), headers, body);
}

static int chunk(char *to, const char *body) { return sprintf(to, "%zx\r\n%s\r\n", strlen(body), body); }

static void make_answers(void) {
  answer_len = http(answer, "200 OK", HEADERS, COMPLETION);
  failure_len = http(failure, "500 Internal Server Error", "", FAILURE);
  stream_head_len = sprintf(stream_head,
                            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                            "transfer-encoding: chunked\r\ncache-control: no-cache\r\n%s\r\n",
                            HEADERS);
  event_first_len = chunk(event_first, EVENT "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
                                             "\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
  // Two of one length: a client may call a model that says the same thing a hundred times broken (LiteLLM does).
  for (int i = 0; i < 2; i++) {
    char text[900];
    sprintf(text, EVENT "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" %s\"},\"logprobs\":null,"
                        "\"finish_reason\":null}]}\n\n", i ? "other" : "token");
    event_len = chunk(event[i], text);
  }
  event_stop_len = chunk(event_stop, EVENT "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
                                           "\"finish_reason\":\"stop\"}]}\n\n");
  event_usage_len = chunk(event_usage, EVENT
                          "\"choices\":[],\"usage\":{\"prompt_tokens\":187,\"completion_tokens\":200,\"total_tokens\":387,"
                          "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
                          "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
                          "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}\n\n");
  event_usage_len += chunk(event_usage + event_usage_len, "data: [DONE]\n\n");
  event_usage_len += sprintf(event_usage + event_usage_len, "0\r\n\r\n");
}

// The queue of connections that have something to send later. One that was closed stays until its turn.

static void enqueue(int i) {
  connections[i].next = NONE;
  connections[i].queued = true;
  if (last == NONE) first = i;
  else connections[last].next = i;
  last = i;
}

static int dequeue(void) {
  int i = first;
  first = connections[i].next;
  if (first == NONE) last = NONE;
  connections[i].queued = false;
  return i;
}

// Sending.

static void hang_up(Connection *c, bool reset) {
  if (!c->open) return;
  if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
  close(c->fd);
  c->open = false;
  c->state = READING;
  c->in_len = c->out_len = c->out_from = 0;
}

static bool waiting(const Connection *c) { return c->out_len > c->out_from; }

static void await_room(Connection *c, bool blocked) {
  if (c->blocked == blocked) return;
  c->blocked = blocked;
  struct epoll_event e = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.u32 = c - connections};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static void flush(Connection *c) {
  while (waiting(c)) {
    int n = send(c->fd, c->out + c->out_from, c->out_len - c->out_from, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) await_room(c, true);
      else hang_up(c, false);
      return;
    }
    c->out_from += n;
  }
  c->out_len = c->out_from = 0;
  await_room(c, false);
}

static void put(Connection *c, const char *data, int n) {
  if (!waiting(c)) {
    c->out_len = c->out_from = 0;
    int sent = send(c->fd, data, n, MSG_NOSIGNAL);
    if (sent == n) return;
    if (sent < 0 && errno != EAGAIN) {
      hang_up(c, false);
      return;
    }
    if (sent > 0) data += sent, n -= sent;
  }
  if (c->out_len + n > c->out_room) {
    c->out_room = (c->out_len + n) * 2;
    c->out = realloc(c->out, c->out_room);
  }
  memcpy(c->out + c->out_len, data, n);
  c->out_len += n;
  await_room(c, true);
}

// Answering.

static void read_requests(Connection *c);

static void answer_json(Connection *c) {
  c->state = READING;
  if (c->fault == RESET) {
    hang_up(c, true);
  } else if (c->fault == STATUS_500) {
    put(c, failure, failure_len);
  } else if (c->fault == CUT || c->fault == BROKEN) {
    put(c, answer, answer_len - 300);  // its last 300 bytes never come
    hang_up(c, c->fault == BROKEN);
  } else {
    put(c, answer, answer_len);
  }
}

static void send_event(Connection *c) {
  if (c->sent == c->events / 2 && (c->fault == CUT || c->fault == BROKEN)) {
    hang_up(c, c->fault == BROKEN);
    return;
  }
  c->sent++;
  if (c->sent == c->events) {
    c->state = READING;
    put(c, event_usage, event_usage_len);
    if (c->open) read_requests(c);
    return;
  }
  if (c->sent == 1) put(c, event_first, event_first_len);
  else if (c->sent == c->events - 1) put(c, event_stop, event_stop_len);
  else put(c, event[c->sent % 2], event_len);
}

static void take_turn(int i, long long now) {
  Connection *c = &connections[i];
  if (!c->open || c->state == READING) return;
  if (waiting(c)) {  // its reader is slow
    c->due = now + delay_us;
    enqueue(i);
  } else if (c->state == JSON) {
    answer_json(c);
    if (c->open) read_requests(c);
  } else {
    send_event(c);
    if (c->open && c->state != READING && !c->queued) {
      c->due += delay_us;
      enqueue(i);
    }
  }
}

static void begin(Connection *c, bool stream) {
  if (!stream && (c->fault == RESET || !delay_us)) {
    answer_json(c);
    return;
  }
  if (stream && (c->fault == RESET || c->fault == STATUS_500)) {
    answer_json(c);
    return;
  }
  c->state = stream ? STREAM : JSON;
  c->sent = 0;
  c->events = events < 4 ? 4 : events;
  c->due = now_us() + delay_us;
  if (stream) put(c, stream_head, stream_head_len);
  if (c->open) enqueue(c - connections);
}

// Reading requests.

static char *header(char *head, int n, const char *name) {
  int len = strlen(name);
  for (char *p = head; (p = memchr(p, '\n', n - (p - head)));) {
    p++;
    if (n - (p - head) < len) return NULL;
    if (!strncasecmp(p, name, len)) return p + len;
  }
  return NULL;
}

static bool says_stream(char *body, long n) {
  char *p = memmem(body, n, "\"stream\"", 8);
  if (!p) return false;
  for (p += 8; p < body + n && (*p == ' ' || *p == ':');) p++;
  return p < body + n && *p == 't';
}

static long id_of(char *body, long n) {
  char *p = memmem(body, n, "soak-", 5), digits[9] = "";
  if (!p || body + n - p < 13) return NONE;
  memcpy(digits, p + 5, 8);
  return atol(digits);
}

static void post(Connection *c, char *body, long n, bool stream) {
  long id = id_of(body, n);
  posts++;
  if (id != NONE && !(seen[id / 8] & 1 << id % 8)) {
    seen[id / 8] |= 1 << id % 8;
    reached++;
  }
  c->fault = WELL;
  if (fault_share > 0 && random32() < fault_share * UINT32_MAX) {
    c->fault = RESET + random32() % 4;
    faults++;
    printf("%ld %s%s\n", id, stream ? "stream-" : "", FAULTS[c->fault]);
  }
}

static void get(Connection *c, char *head, int n) {
  char body[512], whole[1024], *p = memmem(head, n, "/__set?", 7), *end = memchr(head, '\r', n);
  *end = 0;  // the request line alone
  if (p) {
    char *found;
    if ((found = strstr(p, "events="))) events = atoi(found + 7);
    if ((found = strstr(p, "delay_us="))) delay_us = atol(found + 9);
    if ((found = strstr(p, "fault="))) fault_share = atof(found + 6);
    seed = 2463534242;
  }
  if (strstr(head, "/__"))
    sprintf(body, "{\"posts\":%lld,\"reached\":%lld,\"faults\":%lld}", posts, reached, faults);
  else if (strstr(head, "/v1/models"))
    strcpy(body, "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\",\"created\":1763823600,"
                 "\"owned_by\":\"openai\"}]}");
  else
    strcpy(body, "{\"status\":\"ok\",\"model_path\":\"gpt-4o-mini\",\"served_model_name\":\"gpt-4o-mini\"}");
  put(c, whole, http(whole, "200 OK", "", body));
}

// Length of the body after a head of `head` bytes; NONE: it has not all come.
static long body_length(Connection *c, int head) {
  char *body = c->in + head, *length = header(c->in, head, "content-length:");
  int there = c->in_len - head;
  if (header(c->in, head, "transfer-encoding:")) {
    if (there >= 5 && !memcmp(body, "0\r\n\r\n", 5)) return 5;
    char *end = memmem(body, there, "\r\n0\r\n\r\n", 7);
    return end ? end - body + 7 : NONE;
  }
  long n = length ? atol(length) : 0;
  if (there >= n) return n;
  if (there == 0 && header(c->in, head, "expect: 100")) put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
  return NONE;
}

static void read_requests(Connection *c) {
  while (c->open && c->state == READING && c->in_len > 0) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return;
    int head = end - c->in + 4;
    long n = body_length(c, head);
    if (n == NONE) return;
    bool is_post = c->in[0] == 'P', stream = is_post && says_stream(c->in + head, n);
    if (is_post) post(c, c->in + head, n, stream);
    else get(c, c->in, head);
    if (!c->open) return;
    c->in_len -= head + n;
    memmove(c->in, c->in + head + n, c->in_len);
    if (is_post) begin(c, stream);
  }
}

static void receive(Connection *c) {
  int n = recv(c->fd, c->in + c->in_len, INPUT - c->in_len, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    hang_up(c, false);
    return;
  }
  c->in_len += n;
  read_requests(c);
}

static void accept_all(int listener) {
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    int i = 0;
    while (i < CONNECTIONS && (connections[i].open || connections[i].queued)) i++;
    if (i == CONNECTIONS) {
      close(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    Connection *c = &connections[i];
    if (!c->in) c->in = malloc(INPUT);
    c->fd = fd;
    c->open = true;
    c->blocked = false;
    c->state = READING;
    c->in_len = c->out_len = c->out_from = 0;
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  }
}

// The loop.

static long long until_next_us(void) {  // NONE: nothing to send later
  if (first == NONE) return NONE;
  if (delay_us) {
    long long left = connections[first].due - now_us();
    return left > 0 ? left : 0;
  }
  for (int i = first; i != NONE; i = connections[i].next)
    if (!waiting(&connections[i])) return 0;
  return 200;  // all of them wait for slow readers
}

static void send_due(void) {
  if (first == NONE) return;
  long long now = now_us();
  if (!delay_us) {  // one event for each, in turn
    for (int i, round = last; first != NONE;) {
      take_turn(i = dequeue(), now);
      if (i == round) return;
    }
  }
  while (first != NONE && (connections[first].due <= now || !connections[first].open)) take_turn(dequeue(), now);
}

static int listen_on(int port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
    perror("mock");
    exit(1);
  }
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = CONNECTIONS};
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
  return listener;
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: mock PORT\n"), 2;
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  make_answers();
  poller = epoll_create1(0);
  int listener = listen_on(atoi(argv[1]));
  static struct epoll_event ready[512];
  for (;;) {
    long long wait = until_next_us();
    struct timespec t = {wait / 1000000, wait % 1000000 * 1000};
    int n = epoll_pwait2(poller, ready, 512, wait == NONE ? NULL : &t, NULL);
    for (int k = 0; k < n; k++) {
      if (ready[k].data.u32 == CONNECTIONS) {
        accept_all(listener);
        continue;
      }
      Connection *c = &connections[ready[k].data.u32];
      if (c->open && ready[k].events & EPOLLOUT) flush(c);
      if (c->open && ready[k].events & ~EPOLLOUT) receive(c);
    }
    send_due();
  }
}
