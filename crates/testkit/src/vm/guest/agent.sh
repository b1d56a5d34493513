# Does what the host asks for on the second serial port, a line each; what commands say goes to files on the share.
# With the argument `agent` or `shell` it is the first process, and reaps what others leave behind.
B=/run/reseed/busybox
S=/run/reseed/share/runs
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM="${TERM:-linux}" RESEED_VM=1

off() { $B sync; $B poweroff -f; }

run() {
    # `done` comes when its files are closed. The pid is that of the session, so that a kill takes all of it.
    $B setsid $B sh -c 'echo $$ > "/run/reseed/$0.pid"; exec /bin/sh "$1/command"' "$1" "$S/$1" \
        > "$S/$1/stdout" 2> "$S/$1/stderr" < /dev/null 3>&-
    echo "done $1 $?" >&3
}

serve() {
    $B stty -F /dev/ttyS1 raw -echo
    exec 3<>/dev/ttyS1
    echo ready >&3
    while read -r verb id <&3; do
        case $verb in
        run) run "$id" & ;;
        kill) kill -KILL "-$($B cat "/run/reseed/$id.pid")" ;;
        off) off ;;
        esac
    done
}

case $1 in
agent)
    serve &
    # A wait for a child reaps orphans too.
    while :; do $B sleep 1; done ;;
shell)
    cd /
    size=$($B sed -n 's/.*reseed.tty=\([0-9]*\)x\([0-9]*\).*/rows \1 cols \2/p' /proc/cmdline)
    shell=/bin/sh
    [ -x /bin/bash ] && shell=/bin/bash
    [ -n "$size" ] && $B stty -F /dev/ttyS0 $size
    $B setsid $B cttyhack $shell
    off ;;
*) serve ;;
esac
