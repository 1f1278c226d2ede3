// A load generator for JSON and event-stream answers: one thread, epoll, HTTP/1.1.
//
//     load -u HOST:PORT [-p PATH] [-H "NAME: VALUE"]… -b BODY [-s STREAM_BODY -m SHARE] -c CONNECTIONS
//          (-d SECONDS [-r RATE] | -n REQUESTS [-a SHARE] [-e EVERY] [-f FILE])
//
//   -b, -s   files with the body of a JSON request and of a stream's; with both, SHARE of them are streams
//   -d       closed loop for so long; with -r open loop, RATE requests a second, and latency counts from
//            when a request was due, so a gateway that falls behind cannot hide it
//   -n       closed loop of so many requests; SHARE of them are given up by the client: in mid-request, while
//            it waits for the answer or in mid-stream. A "soak-00000000" in a body becomes the request's
//            number. After each EVERY requests their count is written to standard error. FILE takes the
//            number, status and reason of each that was not answered well.
//
// Prints one JSON object. A stream is well only with status 200 and `data: [DONE]` for its last event.
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

enum { CONNECTIONS = 4096, HEAD = 16384, BODY = 1 << 20, SAMPLES = 8000000, TAIL = 14 };
enum { NONE = -1, WAIT_FOR_ANSWER_US = 500, JSON_DRAIN_S = 8, STREAM_DRAIN_S = 20 };
static const char DONE[] = "data: [DONE]\n\n";  // TAIL bytes

typedef struct {
  char *text;
  int length, body_at;
  char *id;  // eight digits; NULL: it has none
} Request;

typedef struct {
  int fd;
  bool open, busy;
  // The request.
  bool stream;
  long number;
  long long due;         // us
  long long give_up_at;  // us; 0: not by time
  int give_up_after;     // events; 0: not by events
  // Its answer.
  char head[HEAD];
  int head_len, status, events;
  bool in_body, began, close, chunked, newline;
  enum { SIZE, DATA, DATA_END, TRAILER } part;  // of the chunked body
  long long left;                               // of the chunk, or of the body; NONE: until the end
  int line;                                     // bytes of a trailer line so far
  char tail[TAIL];
} Connection;

static Connection connections[CONNECTIONS];
static int poller;
static struct sockaddr_in address;
static Request plain, streamed;
static double stream_share, give_up_share;
static long long start, end;
static FILE *unwell_file;
static uint32_t seed = 2463534242, *latencies, *firsts;
static long latency_count, first_count, to_do;  // to_do: requests; 0: by time
static long long fired, sent_whole, finished, in_time, given_up, errors, not_ok, broken, unfinished;
static long long events, events_in_time;
static int in_flight, impatient;  // impatient: give up by time
static char sample[200];  // of the first answer with another status than 200

static long long now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static uint32_t random32(void) {  // xorshift: the same requests in each run
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed;
}

static bool chance(double share) { return share > 0 && random32() < share * UINT32_MAX; }

// Connections.

static void hang_up(Connection *c) {
  if (c->open) close(c->fd);
  c->open = false;
}

static bool dial(Connection *c) {
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (void *)&address, sizeof address)) {
    close(c->fd);
    return false;
  }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = c - connections};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
  return c->open = true;
}

// Requests.

static void unwell(Connection *c, long long *count, const char *reason) {
  ++*count;
  if (unwell_file) fprintf(unwell_file, "%ld %d %s\n", c->number, c->status, reason);
}

static void end_request(Connection *c) {
  if (c->give_up_at) impatient--;
  c->busy = false;
  in_flight--;
}

static void give_up(Connection *c) {
  unwell(c, &given_up, "given up");
  end_request(c);
  hang_up(c);
}

// Decides when the client loses its patience. True: before its request is whole.
static bool plan_giving_up(Connection *c) {
  uint32_t kind = random32() % 3;
  if (kind == 0) return true;
  if (c->stream) {
    c->give_up_after = kind;
  } else {
    c->give_up_at = now_us() + WAIT_FOR_ANSWER_US;
    impatient++;
  }
  return false;
}

static void forget_last(Connection *c) {
  c->give_up_at = c->give_up_after = 0;
  c->head_len = c->status = c->events = 0;
  c->in_body = c->began = c->close = c->chunked = c->newline = false;
  memset(c->tail, 0, TAIL);
}

// False: the gateway takes no connection or no request on it.
static bool fire(Connection *c, long long due) {
  Request *r = !plain.text || (streamed.text && chance(stream_share)) ? &streamed : &plain;
  forget_last(c);
  c->stream = r == &streamed;
  c->number = fired++;
  c->due = due;
  if (!c->open && !dial(c)) {
    unwell(c, &errors, "not connected");
    return false;
  }
  if (r->id) {
    char digits[24];
    sprintf(digits, "%08ld", c->number);
    memcpy(r->id, digits, 8);
  }
  c->busy = true;
  in_flight++;
  bool half = chance(give_up_share) && plan_giving_up(c);
  int n = half ? (r->body_at + r->length) / 2 : r->length;
  if (send(c->fd, r->text, n, MSG_NOSIGNAL) != n) {
    unwell(c, &errors, "not sent");
    end_request(c);
    hang_up(c);
    return false;
  }
  if (half) give_up(c);
  else sent_whole++;
  return true;
}

static bool more(void) { return to_do ? fired < to_do : now_us() < end; }

static void fire_next(Connection *c) {
  while (!c->busy && more() && fire(c, now_us()));
}

// Answers.

static void count_events(Connection *c, const char *p, const char *stop, long long now) {
  while (p < stop) {
    if (c->newline && *p == '\n') {
      c->newline = false;
      c->events++;
      events++;
      if (now < end) events_in_time++;
      p++;
      continue;
    }
    p = memchr(p, '\n', stop - p);
    c->newline = p;
    if (!p) return;
    p++;
  }
}

static void keep_tail(Connection *c, const char *p, int n) {
  if (n >= TAIL) {
    memcpy(c->tail, p + n - TAIL, TAIL);
  } else {
    memmove(c->tail, c->tail + n, TAIL - n);
    memcpy(c->tail + TAIL - n, p, n);
  }
}

static void take_body(Connection *c, const char *p, int n, long long now) {
  if (n <= 0 || !c->stream) return;
  if (!c->began && first_count < SAMPLES) firsts[first_count++] = now - c->due;
  c->began = true;
  count_events(c, p, p + n, now);
  keep_tail(c, p, n);
}

static void keep_sample(Connection *c, const char *body, int n) {
  if (sample[0]) return;
  int length = snprintf(sample, sizeof sample, "%.15s %.*s", c->head, n > 180 ? 180 : n, body);
  for (int i = 0; i < length && sample[i]; i++)
    if (sample[i] < ' ' || sample[i] > '~' || sample[i] == '"' || sample[i] == '\\') sample[i] = ' ';
}

static void read_head(Connection *c, char *stop) {
  c->status = atoi(c->head + 9);
  c->left = NONE;
  for (char *p = c->head; (p = memchr(p, '\n', stop - p));) {
    p++;
    if (!strncasecmp(p, "content-length:", 15)) c->left = atoll(p + 15);
    else if (!strncasecmp(p, "transfer-encoding:", 18)) c->chunked = true;
    else if (!strncasecmp(p, "connection: close", 17)) c->close = true;
  }
  c->in_body = true;
  c->part = SIZE;
  if (c->chunked) c->left = 0;
}

// Adds to the head; returns how many bytes of `p` belong to it, NONE: all, and it is not whole.
static int take_head(Connection *c, const char *p, int n) {
  int before = c->head_len, k = n < HEAD - 1 - before ? n : HEAD - 1 - before;
  memcpy(c->head + before, p, k);
  c->head_len += k;
  c->head[c->head_len] = 0;
  char *stop = memmem(c->head, c->head_len, "\r\n\r\n", 4);
  if (!stop) return NONE;
  read_head(c, stop + 2);
  return stop + 4 - c->head - before;
}

static int hex(char ch) {
  if (ch >= '0' && ch <= '9') return ch - '0';
  ch |= 0x20;
  return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : NONE;
}

// True: the answer is whole.
static bool take_chunked(Connection *c, const char *p, int n, long long now) {
  for (const char *stop = p + n; p < stop;) {
    if (c->part == DATA) {
      int k = stop - p < c->left ? stop - p : c->left;
      take_body(c, p, k, now);
      p += k;
      c->left -= k;
      if (!c->left) c->part = DATA_END;
      continue;
    }
    char ch = *p++;
    if (c->part == SIZE && hex(ch) != NONE) c->left = c->left * 16 + hex(ch);
    if (c->part == TRAILER && ch != '\n' && ch != '\r') c->line++;
    if (ch != '\n') continue;
    if (c->part == TRAILER) {
      if (!c->line) return true;
      c->line = 0;
    } else if (c->part == DATA_END) {
      c->part = SIZE;
    } else {
      c->part = c->left ? DATA : TRAILER;
      c->line = 0;
    }
  }
  return false;
}

// True: the answer is whole.
static bool take(Connection *c, const char *p, int n, long long now) {
  if (!c->in_body) {
    int head = take_head(c, p, n);
    if (head == NONE) return false;
    p += head;
    n -= head;
    if (c->status != 200) keep_sample(c, p, n);
  }
  if (c->chunked) return take_chunked(c, p, n, now);
  if (c->left == NONE) {
    c->close = true;
    take_body(c, p, n, now);
    return false;
  }
  int k = n < c->left ? n : c->left;
  take_body(c, p, k, now);
  return !(c->left -= k);
}

static void finish(Connection *c, long long now) {
  end_request(c);
  finished++;
  if (now < end) in_time++;
  if (latency_count < SAMPLES) latencies[latency_count++] = now - c->due;
  if (c->status != 200) unwell(c, &not_ok, "status");
  else if (c->stream && memcmp(c->tail, DONE, TAIL)) unwell(c, &broken, "no [DONE]");
  if (c->close) hang_up(c);
}

static void lose(Connection *c, long long now) {
  bool ends_so = c->busy && c->in_body && !c->chunked && c->left == NONE;
  if (ends_so) {
    finish(c, now);
  } else if (c->busy) {
    unwell(c, &errors, "broken off");
    end_request(c);
  }
  hang_up(c);
}

static void receive(Connection *c) {
  static char input[256 * 1024];
  int n = recv(c->fd, input, sizeof input, MSG_DONTWAIT);
  long long now = now_us();
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) lose(c, now);
  else if (!c->busy) return;
  else if (take(c, input, n, now)) finish(c, now);
  else if (c->give_up_after && c->events >= c->give_up_after) give_up(c);
}

// The loop.

// An idle connection, rather an open one; a new one where all are busy.
static Connection *idle(int *count) {
  Connection *closed = NULL;
  for (Connection *c = connections; c < connections + *count; c++) {
    if (!c->busy && c->open) return c;
    if (!c->busy && !closed) closed = c;
  }
  if (closed) return closed;
  return *count < CONNECTIONS ? &connections[(*count)++] : NULL;
}

// Open loop: fires what is due; returns when the next one is.
static long long fire_due(double rate, int *count) {
  static long scheduled;
  for (;; scheduled++) {
    long long due = start + (long long)(scheduled * 1e6 / rate);
    if (due >= end) return end;
    if (due > now_us()) return due;
    Connection *c = idle(count);
    if (c) fire(c, due);
    else errors++;
  }
}

static void run_out_of_patience(int count) {
  long long now = now_us();
  for (Connection *c = connections; impatient && c < connections + count; c++) {
    if (!c->busy || !c->give_up_at || c->give_up_at > now) continue;
    give_up(c);
    fire_next(c);
  }
}

static void tell_progress(long every) {
  static long told;
  long over = finished + given_up + errors;
  if (!every || over / every == told) return;
  told = over / every;
  fprintf(stderr, "%ld\n", over);
}

static void run(int count, double rate, long every) {
  static struct epoll_event ready[512];
  long long drain_s = streamed.text ? STREAM_DRAIN_S : JSON_DRAIN_S, heard = now_us();
  for (int i = 0; i < count && !rate; i++) fire_next(&connections[i]);
  for (;;) {
    long long now = now_us(), next = now + 100000;
    if (!in_flight && !(rate && now < end)) return;
    if (now > (to_do ? heard : end) + drain_s * 1000000) return;
    if (rate && now < end) next = fire_due(rate, &count);
    if (impatient) next = now + WAIT_FOR_ANSWER_US;
    long long wait = next - now_us();
    if (wait < 0) wait = 0;
    int n = epoll_pwait2(poller, ready, 512, &(struct timespec){wait / 1000000, wait % 1000000 * 1000}, NULL);
    for (int k = 0; k < n; k++) {
      Connection *c = &connections[ready[k].data.u32];
      if (c->open) receive(c);
      if (!rate) fire_next(c);
    }
    if (n > 0) heard = now_us();
    if (impatient) run_out_of_patience(count);
    tell_progress(every);
  }
}

// What never ended is told too.
static void abandon(void) {
  for (Connection *c = connections; c < connections + CONNECTIONS; c++) {
    if (!c->busy) continue;
    unwell(c, &unfinished, "unfinished");
    end_request(c);
    hang_up(c);
  }
}

// What comes in and goes out.

static Request make_request(const char *path, const char *host, const char *target, const char *headers) {
  static char body[BODY];
  FILE *file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(1);
  }
  int n = fread(body, 1, sizeof body, file);
  fclose(file);
  Request r = {.text = malloc(n + strlen(headers) + strlen(target) + 512)};
  r.body_at = sprintf(r.text,
                      "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: headgate-load/1\r\nAccept: */*\r\n"
                      "Content-Type: application/json\r\n%sContent-Length: %d\r\n\r\n",
                      target, host, headers, n);
  memcpy(r.text + r.body_at, body, n);
  r.length = r.body_at + n;
  char *id = memmem(r.text + r.body_at, n, "soak-", 5);
  r.id = id ? id + 5 : NULL;
  return r;
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static uint32_t quantile(const uint32_t *sorted, long n, double q) { return n ? sorted[(long)(q * (n - 1))] : 0; }

static void print_result(void) {
  double seconds = ((to_do || now_us() < end ? now_us() : end) - start) / 1e6;
  qsort(latencies, latency_count, sizeof *latencies, ascending);
  qsort(firsts, first_count, sizeof *firsts, ascending);
  printf("{\"fired\":%lld,\"sent_whole\":%lld,\"finished\":%lld,\"given_up\":%lld,\"errors\":%lld,\"not_ok\":%lld,"
         "\"broken\":%lld,\"unfinished\":%lld,\"events\":%lld,\"per_second\":%.1f,\"events_per_second\":%.1f,"
         "\"p50_us\":%u,\"p99_us\":%u,\"first_p50_us\":%u,\"sample\":\"%s\"}\n",
         fired, sent_whole, finished, given_up, errors, not_ok, broken, unfinished, events, in_time / seconds,
         events_in_time / seconds, quantile(latencies, latency_count, .5), quantile(latencies, latency_count, .99),
         quantile(firsts, first_count, .5), sample);
}

int main(int argc, char **argv) {
  static char headers[8192];
  const char *host = NULL, *target = "/v1/chat/completions", *body = NULL, *stream_body = NULL;
  double seconds = 0, rate = 0;
  long every = 0;
  int count = 64;
  for (int option; (option = getopt(argc, argv, "u:p:H:b:s:m:c:d:r:n:a:e:f:")) > 0;) switch (option) {
      case 'u': host = optarg; break;
      case 'p': target = optarg; break;
      case 'H': snprintf(headers + strlen(headers), sizeof headers - strlen(headers), "%s\r\n", optarg); break;
      case 'b': body = optarg; break;
      case 's': stream_body = optarg; break;
      case 'm': stream_share = atof(optarg); break;
      case 'c': count = atoi(optarg); break;
      case 'd': seconds = atof(optarg); break;
      case 'r': rate = atof(optarg); break;
      case 'n': to_do = atol(optarg); break;
      case 'a': give_up_share = atof(optarg); break;
      case 'e': every = atol(optarg); break;
      case 'f': unwell_file = fopen(optarg, "w"); break;
      default: return 2;
    }
  if (!host || !(body || stream_body) || count < 1 || count > CONNECTIONS || !(seconds > 0) == !to_do)
    return fprintf(stderr, "load: see the head of load.c for its options\n"), 2;
  char ip[64] = "";
  int port = 0;
  sscanf(host, "%63[^:]:%d", ip, &port);
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, ip, &address.sin_addr);
  if (body) plain = make_request(body, host, target, headers);
  if (stream_body) streamed = make_request(stream_body, host, target, headers);
  signal(SIGPIPE, SIG_IGN);
  latencies = malloc(SAMPLES * sizeof *latencies);
  firsts = malloc(SAMPLES * sizeof *firsts);
  poller = epoll_create1(0);
  for (int i = 0; i < count; i++)
    if (!dial(&connections[i])) return perror("load"), 1;
  start = now_us();
  end = to_do ? INT64_MAX / 2 : start + (long long)(seconds * 1e6);
  run(count, rate, every);
  abandon();
  print_result();
  return 0;
}
