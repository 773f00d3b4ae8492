#!/usr/bin/env bash
# Make certificates for the broker, galleries, collectors and cameras.  Existing files are kept, never overwritten.
#
#   make_certs.sh FOLDER ca                     the authority: run it on a machine that is neither broker nor camera
#   make_certs.sh FOLDER broker HOST...         names and addresses by which cameras and collectors reach the broker
#   make_certs.sh FOLDER gallery HOST...        the same for a gallery reached by HTTPS; also a collector
#   make_certs.sh FOLDER collector [NAME...]    'collector' if no name is given
#   make_certs.sh FOLDER camera NAME...         NAME: the camera's name on the wire
#   make_certs.sh FOLDER revoke NAME...         writes FOLDER/revoked.crl: mosquitto's crlfile
#
# DAYS (default 825) is how long a certificate is valid.
set -euo pipefail
umask 077

fail() { echo "make_certs.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v openssl >/dev/null || fail "openssl is not installed"
folder=$1 what=$2
shift 2
mkdir -p "$folder"
cd "$folder"
work=$(mktemp -d ./.making.XXXXXX)
trap 'rm -rf "$work"' EXIT

check_name() {
  [[ $1 =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$ ]] || fail "'$1' is no name: letters, digits, '_', '.', '-', at most 64, the first no '.' or '-'"
}

# Succeed if both files of a pair exist.  If only one does, a person has to decide.
there() {
  if [ -e "$1.crt" ] && [ -e "$1.key" ]; then echo "kept     $folder/$1.crt"; return 0; fi
  [ ! -e "$1.crt" ] && [ ! -e "$1.key" ] || fail "only one of $folder/$1.crt and $1.key is there: remove it, or find the other"
  return 1
}

quietly() { "$@" 2>"$work/log" || fail "$1 $2: $(cat "$work/log")"; }

new_key() { quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# Arguments: NAME, lines of extensions.  Never the machine's own configuration, which may hold anything.
configure() {
  printf '%s\n' '[req]' 'distinguished_name=subject' 'prompt=no' '[subject]' "CN=$1" '[extensions]' "${@:2}" >"$work/config"
}

# Put a pair in place, the key first: a certificate exists only together with its key.
publish() {
  chmod 0600 "$work/$1.key"
  chmod 0644 "$work/$1.crt"
  ln "$work/$1.key" "$1.key" && ln "$work/$1.crt" "$1.crt" || fail "$folder/$1.crt appeared meanwhile: nothing overwritten"
  echo "made     $folder/$1.crt"
}

make_ca() {
  there ca && return
  new_key "$work/ca.key"
  configure "reid-edge authority" basicConstraints=critical,CA:TRUE,pathlen:0 keyUsage=critical,keyCertSign,cRLSign \
    subjectKeyIdentifier=hash
  quietly openssl req -x509 -new -key "$work/ca.key" -sha256 -days 3650 -config "$work/config" -extensions extensions \
    -out "$work/ca.crt"
  publish ca
}

# Arguments: NAME, usage (serverAuth or clientAuth), further lines of extensions.
make_pair() {
  local name=$1
  there "$name" && return
  [ -e ca.key ] || fail "no $folder/ca.key: make_certs.sh $folder ca comes first"
  new_key "$work/$name.key"
  configure "$name" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature "extendedKeyUsage=$2" \
    subjectKeyIdentifier=hash authorityKeyIdentifier=keyid "${@:3}"
  quietly openssl req -new -key "$work/$name.key" -config "$work/config" -out "$work/request"
  quietly openssl x509 -req -in "$work/request" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 \
    -days "${DAYS:-825}" -extfile "$work/config" -extensions extensions -out "$work/$name.crt"
  publish "$name"
}

alternative_names() {
  local names=() host
  for host in "$@"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=("IP:$host"); else names+=("DNS:$host"); fi
  done
  local IFS=,
  echo "subjectAltName=${names[*]}"
}

# The list of revoked certificates is openssl's own database, kept in revoked.txt.
revoke() {
  touch revoked.txt
  printf '%s\n' '[ca]' 'default_ca=d' '[d]' 'database=revoked.txt' 'default_md=sha256' 'certificate=ca.crt' \
    'private_key=ca.key' 'default_crl_days=3650' >"$work/config"
  local name
  for name in "$@"; do
    check_name "$name"
    [ -e "$name.crt" ] || fail "no $folder/$name.crt to revoke"
    openssl ca -config "$work/config" -revoke "$name.crt" 2>"$work/log" || grep -q "Already revoked" "$work/log" \
      || fail "openssl: $(cat "$work/log")"
    echo "revoked  $folder/$name.crt"
  done
  quietly openssl ca -config "$work/config" -gencrl -out "$work/revoked.crl"
  chmod 0644 "$work/revoked.crl"
  mv "$work/revoked.crl" revoked.crl
}

case $what in
  ca) make_ca ;;
  broker | gallery)
    [ $# -ge 1 ] || fail "$what: give the names and addresses by which it is reached"
    # A gallery may serve cameras and be a collector at the broker; a broker is never a client.
    [ "$what" = broker ] && usage=serverAuth || usage=serverAuth,clientAuth
    make_pair "$what" "$usage" "$(alternative_names "$@")"
    ;;
  collector)
    [ $# -ge 1 ] || set -- collector
    for name in "$@"; do check_name "$name"; make_pair "$name" clientAuth; done
    ;;
  camera)
    [ $# -ge 1 ] || fail "camera: give at least one name"
    # The access list knows collectors by name: a camera of such a name would read every camera's features.
    for name in "$@"; do
      check_name "$name"
      case $name in ca | broker* | gallery* | collector*) fail "'$name' is no name for a camera: it is a role's" ;; esac
      make_pair "$name" clientAuth
    done
    ;;
  revoke) [ $# -ge 1 ] || fail "revoke: give at least one name"; revoke "$@" ;;
  *) fail "'$what' is none of: ca broker gallery collector camera revoke" ;;
esac
