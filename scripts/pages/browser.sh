# What the checks of pages need, for them to source: Node.js with npm, which fetches playwright-core and axe-core, and Chromium,
# which is installed where apt is at hand. Gives $work, a temporary folder with the scripts and, in photos/, the photos of this
# repository, and $screenshots. Exit status 3: something is missing, see what it says.

missing() { echo "$(basename "$0"): $*" >&2; exit 3; }

for tool in node npm; do command -v $tool >/dev/null || missing "no $tool; on Debian: apt-get install nodejs npm"; done
command -v chromium >/dev/null || { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq &&
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } ||
  missing "no chromium; on Debian: apt-get install chromium"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --prefix "$work" playwright-core@1 axe-core@4 ||
  missing "npm cannot fetch playwright-core and axe-core"
cp scripts/pages/*.mjs "$work"
mkdir "$work/photos"
tar -xf models/photos/groceries.tar -C "$work/photos"
screenshots=${SMALTI_PAGES_FOLDER:-$work/screenshots}
mkdir -p "$screenshots"
screenshots=$(realpath "$screenshots")
