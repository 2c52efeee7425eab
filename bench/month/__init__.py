"""A month of a company's Key Vaults and of the services that use them, drawn from a seed.

`plan` says when, `acts` what a call is; `traffic`, `staff` and `fleet` who does what every day, `attacks` and `signs`
what goes wrong, `told` which alerts that has to give. `records` and `feed` make it what a vault logs and how it
arrives; `world` puts it together, `live` and `files` send it through the monitor, `verdict` judges what came of it.
"""
