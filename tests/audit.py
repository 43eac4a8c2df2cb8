"""`make audit`: known vulnerabilities of the packages that are installed, as far as the registry tells them."""
from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    """Print a line a vulnerability. Returns 1 if there is any; 0 also where the registry has nothing to say."""
    found = subprocess.run([sys.executable, "-m", "pip_audit", "--local", "--format", "json"],
                           capture_output=True, text=True)
    try:
        packages = json.loads(found.stdout)["dependencies"]
    except ValueError:
        last_line = (found.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"not audited: pip-audit cannot reach the vulnerability data ({last_line})")
        return 0
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        print(f"not audited: the package registry has no vulnerability data of the {len(packages)} packages; "
              "run this where the public package index can be reached")
        return 0
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for entry in package["vulns"]:
            fixes = ", ".join(entry["fix_versions"]) or "no version"
            print(f"{package['name']} {package['version']}: {entry['id']}, mended in {fixes}")
    print(f"{len(packages) - len(skipped)} packages audited, {len(vulnerable)} with known vulnerabilities; "
          f"not audited: {', '.join(skipped) or 'none'}")
    return int(bool(vulnerable))


if __name__ == "__main__":
    sys.exit(main())
